// What the tests' client sends.

import type { types } from "mediasoup-client";
import { capture, type CaptureOptions } from "./capture";
import { asError, codecIds } from "./helpers";
import { encodes, keepSteady, layered } from "./layers";
import { Transports } from "./transports";
import type { Json } from "./wire";

export interface ProduceOptions extends CaptureOptions {
  kind: "audio" | "video";
  /** "VP8", "H264", "VP9", "AV1", "opus", …; the device's first choice where not given. */
  codec?: string;
  /** appData.source */
  source?: string;
  appData?: Json;
  /** bit/s */
  maxBitrate?: number;
  /** kbit/s, libwebrtc's x-google-start-bitrate */
  startBitrate?: number;
  encodings?: types.RtpEncodingParameters[];
  /** Simulcast of so many encodings (2 or 3), or 1: SVC by `scalabilityMode`. */
  layers?: number;
  scalabilityMode?: string;
  /** Neither frame rate nor size give way to a machine that is too slow. */
  steady?: boolean;
  codecOptions?: types.ProducerCodecOptions;
  /** Rather fewer frames than smaller ones. */
  keepResolution?: boolean;
}
export class Producers extends Transports {
  protected readonly producers = new Map<string, { producer: types.Producer; track: MediaStreamTrack }>();

  async produce(options: ProduceOptions): Promise<Json> {
    const { kind, codec, source, appData, maxBitrate, startBitrate, layers, scalabilityMode } = options;
    const device = this.loaded();
    const wanted = codec && `${kind}/${codec}`.toLowerCase();
    const chosen = wanted && device.sendRtpCapabilities.codecs?.find(({ mimeType }) => mimeType.toLowerCase() === wanted);
    if (wanted && !chosen) {
      const known = device.sendRtpCapabilities.codecs?.map(({ mimeType }) => mimeType).join(", ");
      throw new Error(`produce: this browser and this router do not share ${codec}; they share ${known}`);
    }
    const transport = await this.transport("send");
    const track = await capture(kind, options);
    const simple = maxBitrate === undefined ? undefined : [{ maxBitrate }];
    const encodings = options.encodings ?? (layers === undefined ? simple : layered(layers, scalabilityMode));
    const producer = await transport
      .produce({
        track,
        ...(chosen ? { codec: chosen } : {}),
        ...(encodings ? { encodings } : {}),
        codecOptions: { ...(startBitrate ? { videoGoogleStartBitrate: startBitrate } : {}), ...options.codecOptions },
        appData: { ...(source ? { source } : {}), ...appData },
      })
      .catch((error: unknown) => {
        track.stop();
        throw asError("produce", error);
      });
    if (options.keepResolution && producer.rtpSender) {
      const parameters = { ...producer.rtpSender.getParameters(), degradationPreference: "maintain-resolution" };
      await producer.rtpSender.setParameters(parameters as RTCRtpSendParameters);
    }
    this.producers.set(producer.id, { producer, track });
    if (options.steady) await keepSteady(producer);
    producer.observer.on("close", () => this.producers.delete(producer.id));
    return { id: producer.id, kind, ...codecIds(producer.rtpParameters), rtpParameters: producer.rtpParameters };
  }

  /** Whether this browser encodes that. */
  encodes(codec: string, scalabilityMode: string): Promise<boolean> {
    return encodes(codec, scalabilityMode);
  }

  /** Request `pauseProducer`, `resumeProducer` or `closeProducer` and do the same to the local producer. */
  async pauseProducer(producerId: string): Promise<void> {
    await this.request("pauseProducer", { producerId });
    this.#producer(producerId).pause();
  }

  async resumeProducer(producerId: string): Promise<void> {
    this.#producer(producerId).resume();
    await this.request("resumeProducer", { producerId });
  }

  async closeProducer(producerId: string): Promise<void> {
    this.#producer(producerId).close();
    await this.request("closeProducer", { producerId });
  }

  /** Request `stopProducing` and close all local producers. */
  async stopProducing(): Promise<Json> {
    const ack = await this.request("stopProducing");
    for (const { producer } of [...this.producers.values()]) producer.close();
    return ack;
  }

  protected closeProducers(): void {
    for (const { track } of this.producers.values()) track.stop();
    this.producers.clear();
  }

  #producer(id: string): types.Producer {
    const found = this.producers.get(id);
    if (!found) throw new Error(`no producer ${id} here`);
    return found.producer;
  }
}
