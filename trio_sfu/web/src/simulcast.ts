// What each source is sent with: codecs' options, and for video how many encodings, how large and at which rates.
// Pure; the session asks it when it produces.

import type { types } from "mediasoup-client";
import type { Source } from "./protocol";

/** Preferred for video, in this order: every browser decodes them, and sends them as simulcast with rids. */
const VIDEO_CODECS = ["video/vp8", "video/h264"];

/** Long sides, in pixels, from which on a camera is worth three and two encodings. */
const THREE_FROM = 960;
const TWO_FROM = 480;
const SCREEN_TWO_FROM = 1_280;

/** How much a layer may be enlarged to fill its tile. */
const ENLARGED = 1.5;
/** Long side of the lowest of a camera's encodings where there are more; each is twice the one below. */
const LOWEST = 320;
const SCREEN_LOWEST = 960;

// Three temporal layers, so that the server can thin the frames out, too. Bit rates in bit/s, the lowest encoding first.
const CAMERA: Record<1 | 2 | 3, types.RtpEncodingParameters[]> = {
  1: [{ maxBitrate: 600_000 }],
  2: [
    { scaleResolutionDownBy: 2, maxBitrate: 150_000, scalabilityMode: "L1T3" },
    { scaleResolutionDownBy: 1, maxBitrate: 700_000, scalabilityMode: "L1T3" },
  ],
  3: [
    { scaleResolutionDownBy: 4, maxBitrate: 150_000, scalabilityMode: "L1T3" },
    { scaleResolutionDownBy: 2, maxBitrate: 500_000, scalabilityMode: "L1T3" },
    { scaleResolutionDownBy: 1, maxBitrate: 2_500_000, scalabilityMode: "L1T3" },
  ],
};

// A screen's small encoding is for thumbnails and bad networks: few frames, in which large text can still be read.
const SCREEN: Record<1 | 2, types.RtpEncodingParameters[]> = {
  1: [{ maxBitrate: 2_000_000 }],
  2: [
    { scaleResolutionDownBy: 2, maxBitrate: 400_000, maxFramerate: 5, scalabilityMode: "L1T1" },
    { scaleResolutionDownBy: 1, maxBitrate: 3_000_000, maxFramerate: 30, scalabilityMode: "L1T1" },
  ],
};

/** Options for `transport.produce`. `codecs`: what this browser can send to this room, as the device has it. */
export function sendingOptions(
  source: Source,
  track: MediaStreamTrack,
  codecs: readonly types.RtpCodecCapability[] = [],
): types.ProducerOptions {
  if (source === "microphone") return { codecOptions: { opusDtx: true, opusFec: true, opusNack: true } };
  const mimeType = VIDEO_CODECS.find((wanted) => codecs.some((each) => each.mimeType.toLowerCase() === wanted));
  const codec = codecs.find((each) => each.mimeType.toLowerCase() === mimeType);
  const side = longSide(track);
  const encodings =
    source === "screen" ? SCREEN[side >= SCREEN_TWO_FROM ? 2 : 1] : CAMERA[side >= THREE_FROM ? 3 : side >= TWO_FROM ? 2 : 1];
  return {
    // Where neither is there the codec may be one that knows no simulcast: the largest alone.
    encodings: (codec ? encodings : encodings.slice(-1)).map((each) => ({ ...each })),
    codecOptions: { videoGoogleStartBitrate: 1_000 }, // in kbit/s
    ...(codec ? { codec } : {}),
  };
}

/** More than any source has; the server takes what is too high for the highest. */
export const LAYERS_UNKNOWN = 9;

/** The lowest of `layers` encodings that still looks good where its long side is `width` device pixels. */
export function layerFor(width: number, layers: number, source: Source): number {
  const lowest = source === "screen" ? SCREEN_LOWEST : LOWEST;
  for (let layer = 0; layer < layers - 1; layer++) {
    if (width <= lowest * 2 ** layer * ENLARGED) return layer;
  }
  return layers - 1;
}

/** How many encodings a consumer can choose from; mediasoup counts them as spatial layers. */
export function layersOf({ encodings }: types.RtpParameters): number {
  const found = /^[LS](\d)T\d/.exec(encodings?.[0]?.scalabilityMode ?? "");
  return found ? Number(found[1]) : 1;
}

function longSide(track: MediaStreamTrack): number {
  const { width = 0, height = 0 } = track.getSettings();
  return Math.max(width, height) || Infinity; // unknown: as large as they come
}
