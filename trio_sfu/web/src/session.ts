// One stay in a room: the mediasoup-client device and its two transports, whose ways through the network it repairs.
// It outlives lost signalling connections where the server resumes; else the call makes a new one and closes this.

import { Device, type types } from "mediasoup-client";
import type { Source } from "./protocol";
import { Repair } from "./repair";
import { codeOf, type Signalling } from "./signalling";
import { layersOf, sendingOptions } from "./simulcast";

export interface SessionWatcher {
  /** A transport's connection state changed. */
  transportChanged(direction: Direction, state: types.ConnectionState): void;
  /** A transport is of no more use and wants `renew`. */
  transportLost(direction: Direction, transportId: string): void;
}

/** What a consumer was made with. */
export interface Received {
  consumer: types.Consumer;
  /** How many encodings the server can choose from. */
  layers: number;
  source?: string;
  paused: boolean;
}

/** What the parts of a call see of it. */
export interface Stay {
  readonly roomId: string;
  /** This user's id, as the others see it. */
  readonly me: string;
  readonly session: Session | undefined;
  readonly signalling: Signalling | undefined;
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
  readonly #made = new Map<Direction, types.Transport>();
  readonly #repairs = new Map<Direction, Repair>();
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

  /** Whether a way through the network is lost and being looked for. */
  get repairing(): boolean {
    return [...this.#repairs.values()].some(({ active }) => active);
  }

  /** The transports there are. */
  get transports(): ReadonlyMap<Direction, types.Transport> {
    return this.#made;
  }

  networkChanged(): void {
    for (const repair of this.#repairs.values()) repair.networkChanged();
  }

  /** After a resumed signalling connection: see that the server still has the transports, and repair what broke. */
  async lineIsUp(): Promise<void> {
    const { roomId } = this;
    for (const [direction, { id }] of [...this.#made]) {
      try {
        await this.#signalling.request("getStats", { roomId, transportId: id });
        if (this.#made.get(direction)?.id === id) this.#repairs.get(direction)?.lineIsUp();
      } catch (error) {
        if (codeOf(error).endsWith("-not-found")) this.#watcher.transportLost(direction, id);
      }
    }
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
    const producer = await transport.produce({
      ...sendingOptions(source, track, this.#loaded().sendRtpCapabilities.codecs),
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

  /**
   * Receive another's producer, its encodings up to `layer` where that is given. Video starts paused, so that no packet
   * comes before there is a place for it.
   */
  async consume(producerId: string, layer?: number): Promise<Received> {
    const transport = await this.#transport("receive");
    const { roomId } = this;
    const rtpCapabilities = this.#loaded().recvRtpCapabilities;
    const info = await this.#signalling.request("consume", {
      roomId,
      producerId,
      rtpCapabilities,
      paused: true,
      ...(layer === undefined ? {} : { preferredLayers: { spatialLayer: layer } }),
    });
    const { id, kind, rtpParameters } = info;
    const consumer = await transport.consume({ id, producerId, kind, rtpParameters });
    await this.#signalling.request("resumeConsumer", { roomId, consumerId: id });
    const layers = info.type === "simulcast" ? layersOf(rtpParameters) : 1;
    return { consumer, layers, source: info.appData?.source, paused: info.producerPaused ?? false };
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
    this.#made.delete(direction);
    this.#repairs.get(direction)?.close();
    this.#repairs.delete(direction);
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
    const repair = new Repair({
      restart: () => this.#restartIce(transport),
      giveUp: () => this.#watcher.transportLost(direction, transport.id),
    });
    this.#made.set(direction, transport);
    this.#repairs.set(direction, repair);
    const changed = (state: types.ConnectionState): void => {
      if (transport.closed || this.#closed) return;
      if (state === "connected") this.everConnected = true;
      this.#states.set(direction, state);
      repair.stateChanged(state);
      this.#watcher.transportChanged(direction, state);
    };
    transport.on("connectionstatechange", changed);
    changed("connecting"); // it is made to be used at once; the browser's own "new" may last
    return transport;
  }

  async #restartIce(transport: types.Transport): Promise<void> {
    const { roomId } = this;
    const { iceParameters } = await this.#signalling.request("restartIce", { roomId, transportId: transport.id });
    if (!transport.closed) await transport.restartIce({ iceParameters });
  }
}
