// One stay in a room over one signalling connection: the mediasoup-client device and its two transports.
// The call makes a new one at every (re)connection and closes the old; nothing in here outlives it.

import { Device, type types } from "mediasoup-client";
import type { Source } from "./protocol";
import type { Signalling } from "./signalling";

const VIDEO_CODEC = "video/vp8";

/** What each source is sent with. Bit rates in bit/s, start rates in kbit/s as libwebrtc wants them. */
const SENDING: Record<Source, types.ProducerOptions> = {
  camera: { encodings: [{ maxBitrate: 2_500_000 }], codecOptions: { videoGoogleStartBitrate: 1_000 } },
  microphone: { codecOptions: { opusDtx: true, opusFec: true } },
  screen: { encodings: [{ maxBitrate: 3_000_000 }], codecOptions: { videoGoogleStartBitrate: 1_000 } },
};

export interface SessionWatcher {
  /** A transport's connection state changed; `failed` ones are of no more use and want `renew`. */
  transportChanged(direction: Direction, state: types.ConnectionState): void;
}

export type Direction = "send" | "receive";

export class Session {
  readonly roomId: string;
  readonly producers = new Map<Source, types.Producer>();
  /** Whether media ever got through. */
  everConnected = false;
  readonly #signalling: Signalling;
  readonly #watcher: SessionWatcher;
  readonly #states = new Map<Direction, types.ConnectionState>();
  #device: Device | undefined;
  #closed = false;
  // Made when first needed: the server closes a transport that stays unconnected.
  #transports: Partial<Record<Direction, Promise<types.Transport>>> = {};

  constructor(signalling: Signalling, roomId: string, watcher: SessionWatcher) {
    this.#signalling = signalling;
    this.roomId = roomId;
    this.#watcher = watcher;
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** True once media can be sent and received. */
  get ready(): boolean {
    return this.#device !== undefined && !this.#closed;
  }

  get transportStates(): types.ConnectionState[] {
    return [...this.#states.values()];
  }

  /** Learn what the room's router can do. Rejects with RequestError or, in an unknown browser, an Error to be shown. */
  async load(): Promise<void> {
    const device = await Device.factory().catch((error: unknown) => {
      if (!(error instanceof Error) || error.name !== "UnsupportedError") throw error;
      throw new Error("This browser is not one that calls work in. A recent Chrome, Edge, Firefox or Safari is.");
    });
    const { rtpCapabilities } = await this.#signalling.request("getRouterRtpCapabilities", { roomId: this.roomId });
    await device.load({ routerRtpCapabilities: rtpCapabilities });
    this.#device = device;
  }

  /** Send a track. A disabled one begins paused. The track stays the caller's: closing a producer does not stop it. */
  async produce(source: Source, track: MediaStreamTrack): Promise<types.Producer> {
    const transport = await this.#transport("send");
    const codec = this.#loaded().sendRtpCapabilities.codecs?.find(
      (each) => each.mimeType.toLowerCase() === VIDEO_CODEC,
    );
    const producer = await transport.produce({
      ...SENDING[source],
      ...(track.kind === "video" && codec ? { codec } : {}),
      track,
      stopTracks: false,
      appData: { source },
    });
    this.producers.set(source, producer);
    producer.observer.on("close", () => {
      if (this.producers.get(source) === producer) this.producers.delete(source);
    });
    return producer;
  }

  /** Receive another's producer. Video starts paused, so that no packet comes before there is a place for it. */
  async consume(producerId: string): Promise<{ consumer: types.Consumer; source?: string; paused: boolean }> {
    const transport = await this.#transport("receive");
    const { roomId } = this;
    const rtpCapabilities = this.#loaded().recvRtpCapabilities;
    const info = await this.#signalling.request("consume", { roomId, producerId, rtpCapabilities, paused: true });
    const { id, kind, rtpParameters } = info;
    const consumer = await transport.consume({ id, producerId, kind, rtpParameters });
    await this.#signalling.request("resumeConsumer", { roomId, consumerId: id });
    return { consumer, source: info.appData?.source, paused: info.producerPaused ?? false };
  }

  /**
   * Drop a direction's transport and all that ran on it; the next produce or consume makes a new one. False where
   * there was nothing to drop: no transport, or not the one with that id, or someone else was quicker.
   */
  async renew(direction: Direction, transportId?: string): Promise<boolean> {
    const old = this.#transports[direction];
    const transport = await old?.catch(() => undefined);
    if (!transport || this.#transports[direction] !== old) return false;
    if (transportId !== undefined && transport.id !== transportId) return false;
    delete this.#transports[direction];
    this.#states.delete(direction);
    transport.close();
    return true;
  }

  close(): void {
    this.#closed = true;
    void this.renew("send");
    void this.renew("receive");
  }

  #loaded(): Device {
    if (!this.#device || this.#closed) throw new Error("This stay in the room is over.");
    return this.#device;
  }

  #transport(direction: Direction): Promise<types.Transport> {
    const device = this.#loaded();
    const present = this.#transports[direction];
    if (present) return present;
    const made = direction === "send" ? this.#makeSend(device) : this.#makeReceive(device);
    this.#transports[direction] = made;
    made.catch(() => {
      if (this.#transports[direction] === made) delete this.#transports[direction];
    });
    return made;
  }

  async #makeSend(device: Device): Promise<types.Transport> {
    const { roomId } = this;
    const transport = device.createSendTransport(
      await this.#signalling.request("createProducerTransport", { roomId }),
    );
    transport.on("connect", ({ dtlsParameters }, done, failed) => {
      this.#signalling.request("connectProducerTransport", { roomId, dtlsParameters }).then(done, failed);
    });
    transport.on("produce", ({ kind, rtpParameters, appData }, done, failed) => {
      this.#signalling.request("produce", { roomId, kind, rtpParameters, appData }).then(done, failed);
    });
    return this.#watched("send", transport);
  }

  async #makeReceive(device: Device): Promise<types.Transport> {
    const { roomId } = this;
    const transport = device.createRecvTransport(
      await this.#signalling.request("createConsumerTransport", { roomId }),
    );
    transport.on("connect", ({ dtlsParameters }, done, failed) => {
      this.#signalling.request("connectConsumerTransport", { roomId, dtlsParameters }).then(done, failed);
    });
    return this.#watched("receive", transport);
  }

  #watched(direction: Direction, transport: types.Transport): types.Transport {
    if (this.#closed) {
      transport.close();
      throw new Error("This stay in the room is over.");
    }
    const changed = (state: types.ConnectionState): void => {
      if (transport.closed || this.#closed) return;
      if (state === "connected") this.everConnected = true;
      this.#states.set(direction, state);
      this.#watcher.transportChanged(direction, state);
    };
    transport.on("connectionstatechange", changed);
    changed("connecting"); // it is made to be used at once; the browser's own "new" may last
    return transport;
  }
}
