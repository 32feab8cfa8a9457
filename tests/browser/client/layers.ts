// Encodings of several layers, as front ends ask mediasoup-client for them, and what this browser can encode.

import type { types } from "mediasoup-client";

/** Lowest first. */
const SIMULCAST: readonly types.RtpEncodingParameters[] = [
  { scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { scaleResolutionDownBy: 1, maxBitrate: 1_700_000 },
];

/** One stream with all the layers, up to the bit rate of the three of a simulcast. */
const SVC_BITRATE = 2_350_000;

/**
 * `layers` encodings (the highest ones are of full size), or a single one whose layers are those of `scalabilityMode`.
 * mediasoup-client adds the rids. For simulcast the mode (L1T3, …) is that of each encoding.
 */
export function layered(layers: number, scalabilityMode?: string): types.RtpEncodingParameters[] {
  const mode = scalabilityMode === undefined ? {} : { scalabilityMode };
  if (layers === 1) return [{ ...mode, maxBitrate: SVC_BITRATE }];
  return SIMULCAST.slice(-layers).map((encoding) => ({ ...encoding, ...mode }));
}

/** Whether this browser encodes `codec` ("VP9", …) with `scalabilityMode`, for a picture of 720p. */
export async function encodes(codec: string, scalabilityMode: string): Promise<boolean> {
  const video = { contentType: `video/${codec}`, width: 1280, height: 720, bitrate: SVC_BITRATE, framerate: 30, scalabilityMode };
  const { supported } = await navigator.mediaCapabilities.encodingInfo({ type: "webrtc", video });
  return supported;
}

/** Have the encoder keep size and frame rate whatever the machine can do. */
export async function keepSteady(producer: types.Producer): Promise<void> {
  const parameters = producer.rtpSender?.getParameters();
  if (!parameters) throw new Error("the producer has no sender");
  Object.assign(parameters, { degradationPreference: "maintain-framerate-and-resolution" });
  await producer.rtpSender?.setParameters(parameters);
}
