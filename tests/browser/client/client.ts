// One user in one room at a time. Speaks only what the server's protocol describes.

import { Device, type types } from "mediasoup-client";
import { capture, type CaptureOptions } from "./capture";
import { firstFrame, type Timing } from "./firstframe";
import { FrameWatch, type Watched } from "./framewatch";
import { encodes, keepSteady, layered } from "./layers";
import { type Figures, StatsReader } from "./stats";
import { DEFAULT_TIMEOUT_MS, type Json, Wire } from "./wire";

type Direction = "send" | "recv";

// Newer Chromiums than mediasoup-client knows by name are driven like the newest it does know.
const NEWEST_CHROME: types.BuiltinHandlerName = "Chrome111";

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

export interface ConsumeOptions {
  /** Ask for a paused consumer. */
  paused?: boolean;
  /** With `paused`: resume as soon as the consumer exists (default true). */
  resume?: boolean;
  /** Wait for the first frame (default true); otherwise its timing is found later in `consumed()`. */
  wait?: boolean;
  timeoutMs?: number;
}

export interface Consumed {
  id: string;
  producerId: string;
  kind: string;
  codec: string;
  type: string | null;
  producerPaused: boolean | null;
  appData: unknown;
  timing: Timing;
}

interface Consuming {
  consumer: types.Consumer;
  element: HTMLMediaElement;
  result: Consumed;
  error?: string;
}

export class SfuClient extends Wire {
  #device: Device | undefined;
  #transports: Partial<Record<Direction, Promise<types.Transport>>> = {};
  #transportStates: Record<Direction, string[]> = { send: [], recv: [] };
  #producers = new Map<string, { producer: types.Producer; track: MediaStreamTrack }>();
  #consuming = new Map<string, Consuming>();
  #failures: string[] = [];
  #portMap = new Map<number, { port: number; address?: string }>();
  #protocols: readonly string[] | undefined;
  #policy: RTCIceTransportPolicy = "all";
  #auto: ConsumeOptions | undefined;
  #autoWork = new Set<Promise<unknown>>();
  #stats = new StatsReader();
  #watches = new Map<string, FrameWatch>();

  // Device and transports

  async loadDevice(): Promise<Json> {
    const { rtpCapabilities } = await this.request("getRouterRtpCapabilities");
    let device: Device;
    try {
      device = new Device();
    } catch {
      device = new Device({ handlerName: NEWEST_CHROME });
    }
    await device.load({ routerRtpCapabilities: rtpCapabilities as types.RtpCapabilities });
    this.#device = device;
    const names = (caps: types.RtpCapabilities): string[] => (caps.codecs ?? []).map(({ mimeType }) => mimeType);
    return {
      handler: device.handlerName,
      canProduceAudio: device.canProduce("audio"),
      canProduceVideo: device.canProduce("video"),
      sendCodecs: names(device.sendRtpCapabilities),
      recvCodecs: names(device.recvRtpCapabilities),
    };
  }

  /** The device's receiving capabilities, as `consume` sends them. */
  rtpCapabilities(): types.RtpCapabilities {
    return this.#loaded().recvRtpCapabilities;
  }

  /** From now on, transports' candidates with port `from` (0: any) get port `to` (and `address`): the way to a relay. */
  mapCandidatePort(from: number, to: number, address?: string): void {
    this.#portMap.set(from, { port: to, ...(address ? { address } : {}) });
  }

  /** From now on, transports see only the server's candidates of these protocols: "udp", "tcp". */
  useProtocols(protocols: string[]): void {
    this.#protocols = protocols;
  }

  /** From now on, transports use no candidates of their own but those of TURN servers ("relay"), or any ("all"). */
  usePolicy(policy: RTCIceTransportPolicy): void {
    this.#policy = policy;
  }

  /** Make a direction's transport now instead of at first use; again: a fresh one. Resolves with the server's ack. */
  async createTransport(direction: Direction): Promise<Json> {
    const old = this.#transports[direction];
    delete this.#transports[direction];
    (await old)?.close();
    let ack: Json = {};
    const made = this.#makeTransport(direction, (answer) => (ack = answer));
    this.#transports[direction] = made;
    await made.catch((error: unknown) => {
      delete this.#transports[direction];
      throw error;
    });
    return ack;
  }

  /** Request `restartIce` for a direction's transport and restart there; what the server answered. */
  async restartIce(direction: Direction): Promise<Json> {
    const transport = await this.#transport(direction);
    const { iceParameters } = await this.request("restartIce", { transportId: transport.id });
    await transport.restartIce({ iceParameters: iceParameters as types.IceParameters });
    return iceParameters as Json;
  }

  /** Every connection state each transport went through, oldest first. */
  transportStates(): Record<Direction, string[]> {
    return structuredClone(this.#transportStates);
  }

  /** Resolves when the transport of that direction is in that state, with the milliseconds it took. */
  async waitTransport(direction: Direction, state = "connected", timeoutMs = DEFAULT_TIMEOUT_MS): Promise<number> {
    const start = performance.now();
    while (this.#transportStates[direction].at(-1) !== state) {
      if (performance.now() - start > timeoutMs) {
        throw new Error(`${direction} transport is not ${state} in ${timeoutMs} ms: ${this.#transportStates[direction].join(" → ") || "none"}`);
      }
      await sleep(5);
    }
    return performance.now() - start;
  }

  // Sending

  async produce(options: ProduceOptions): Promise<Json> {
    const { kind, codec, source, appData, maxBitrate, startBitrate, layers, scalabilityMode } = options;
    const device = this.#loaded();
    const wanted = codec && `${kind}/${codec}`.toLowerCase();
    const chosen = wanted && device.sendRtpCapabilities.codecs?.find(({ mimeType }) => mimeType.toLowerCase() === wanted);
    if (wanted && !chosen) {
      const known = device.sendRtpCapabilities.codecs?.map(({ mimeType }) => mimeType).join(", ");
      throw new Error(`produce: this browser and this router do not share ${codec}; they share ${known}`);
    }
    const transport = await this.#transport("send");
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
    this.#producers.set(producer.id, { producer, track });
    if (options.steady) await keepSteady(producer);
    producer.observer.on("close", () => this.#producers.delete(producer.id));
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
    for (const { producer } of [...this.#producers.values()]) producer.close();
    return ack;
  }

  // Receiving

  /** Consume a producer, show it in an element of its own (`#consumer-<producerId>`), and time its first frame. */
  async consume(producerId: string, options: ConsumeOptions = {}): Promise<Consumed> {
    const { paused = false, resume = true, wait = true, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    const transport = await this.#transport("recv");
    const wasConnected = transport.connectionState === "connected";
    const start = performance.now();
    const since = (): number => performance.now() - start;
    const payload = { producerId, rtpCapabilities: this.rtpCapabilities(), ...(paused ? { paused } : {}) };
    const info = await this.request("consume", payload, timeoutMs);
    const ackMs = since();
    const rtpParameters = info.rtpParameters as types.RtpParameters;
    const consumer = await transport
      .consume({ id: String(info.id), producerId, kind: info.kind as types.MediaKind, rtpParameters })
      .catch((error: unknown) => {
        throw asError("consume", error);
      });
    const consumerMs = since();
    const element = attach(consumer);
    const timing: Timing = { ackMs, consumerMs, connectedMs: wasConnected ? 0 : null, firstMs: null, trackMs: null, shownMs: null, statsMs: null };
    const result: Consumed = {
      id: consumer.id,
      producerId,
      kind: consumer.kind,
      codec: String(codecIds(consumer.rtpParameters).codec),
      type: typeof info.type === "string" ? info.type : null,
      producerPaused: typeof info.producerPaused === "boolean" ? info.producerPaused : null,
      appData: info.appData ?? null,
      timing,
    };
    this.#consuming.set(consumer.id, { consumer, element, result });
    consumer.observer.on("close", () => {
      element.remove();
      this.#consuming.delete(consumer.id);
    });
    const noteConnected = (state: types.ConnectionState): void => {
      if (state === "connected") timing.connectedMs ??= since();
    };
    if (transport.connectionState === "connected") noteConnected("connected");
    else transport.on("connectionstatechange", noteConnected);
    const first = firstFrame(consumer, element, start, timeoutMs).then((firsts) => {
      transport.off("connectionstatechange", noteConnected);
      Object.assign(timing, firsts);
    });
    if (paused && resume) await this.request("resumeConsumer", { consumerId: consumer.id });
    if (wait && !(paused && !resume)) await first;
    return result;
  }

  /** Consume all that the others send now, at the same moment. */
  async consumeAll(options: ConsumeOptions = {}): Promise<Consumed[]> {
    const { producers } = (await this.request("listProducers")) as { producers: { producerId: string }[] };
    return Promise.all(producers.map(({ producerId }) => this.consume(producerId, options)));
  }

  /** From now on consume whatever `newProducer` tells of; null: stop that. Results: `consumed()`, errors: `failures()`. */
  autoConsume(options: ConsumeOptions | null = {}): void {
    this.#auto = options ?? undefined;
  }

  /** Every consumer that is open, with its timing; with `settle`, when all automatic ones have their first frame. */
  async consumed(settle = false): Promise<Consumed[]> {
    while (settle && this.#autoWork.size) await Promise.all(this.#autoWork);
    return [...this.#consuming.values()].map(({ result }) => result);
  }

  /** What went wrong in the background (automatic consuming, transports), as sentences. */
  failures(): string[] {
    return [...this.#failures];
  }

  async pauseConsumer(consumerId: string): Promise<void> {
    await this.request("pauseConsumer", { consumerId });
    this.#consumingOf(consumerId).consumer.pause();
  }

  async resumeConsumer(consumerId: string): Promise<void> {
    this.#consumingOf(consumerId).consumer.resume();
    await this.request("resumeConsumer", { consumerId });
  }

  async closeConsumer(consumerId: string): Promise<void> {
    this.#consumingOf(consumerId).consumer.close();
    await this.request("closeConsumer", { consumerId });
  }

  /** Want no more than these layers of a consumer's producer; resolves with the server's ack. */
  setPreferredLayers(consumerId: string, layers: { spatialLayer: number; temporalLayer?: number }): Promise<Json> {
    return this.request("setPreferredLayers", { consumerId, ...layers });
  }

  /** What `layersChanged` told of a consumer, oldest first; null: no layer goes out. */
  layerChanges(consumerId: string): { atMs: number; spatialLayer: unknown; temporalLayer: unknown }[] {
    return this.events("layersChanged").flatMap(({ atMs, payload }) => {
      const { consumerId: id, spatialLayer = null, temporalLayer = null } = payload as Json;
      return id === consumerId ? [{ atMs, spatialLayer, temporalLayer }] : [];
    });
  }

  // Measuring

  /** From now on watch the frames of every video that is consumed now; again: begin anew. */
  watchFrames(): void {
    this.#stopWatching();
    for (const { consumer } of this.#consuming.values()) {
      if (consumer.kind === "video") this.#watches.set(consumer.id, new FrameWatch(consumer.track));
    }
  }

  /** What has been seen since `watchFrames`, by the consumer's id. */
  watched(): Record<string, Watched> {
    return Object.fromEntries([...this.#watches].map(([id, watch]) => [id, watch.result()]));
  }

  async stats(): Promise<Json> {
    const transport = async (direction: Direction): Promise<Figures | null> => {
      const found = await this.#transports[direction]?.catch(() => undefined);
      if (!found || found.closed) return null;
      return { connectionState: found.connectionState, ...this.#stats.transport(await found.getStats()) };
    };
    const producers = [...this.#producers.values()].map(async ({ producer }) => ({
      id: producer.id,
      kind: producer.kind,
      paused: producer.paused,
      streams: this.#stats.outbound(await producer.getStats()),
    }));
    const consumers = [...this.#consuming.values()].map(async ({ consumer, element }) => ({
      id: consumer.id,
      producerId: consumer.producerId,
      kind: consumer.kind,
      paused: consumer.paused,
      muted: consumer.track.muted,
      currentTime: element.currentTime,
      ...this.#stats.inbound(await consumer.getStats()),
    }));
    return {
      nowMs: performance.now(),
      send: await transport("send"),
      recv: await transport("recv"),
      producers: await Promise.all(producers),
      consumers: await Promise.all(consumers),
    };
  }

  /** Wait until every consumer (or the one named) decoded `frames` more video frames, or heard sound for audio. */
  async waitDecoding({ consumerId, frames = 10, timeoutMs = DEFAULT_TIMEOUT_MS }: { consumerId?: string; frames?: number; timeoutMs?: number } = {}): Promise<Json> {
    const begin = performance.now();
    const firsts = new Map<string, number>();
    for (;;) {
      const stats = (await this.stats()) as { consumers: (Figures & { id: string })[] };
      const missing = stats.consumers
        .filter(({ id }) => consumerId === undefined || id === consumerId)
        .filter((each) => {
          const figure = Number(each.kind === "video" ? each.framesDecoded : each.totalAudioEnergy) || 0;
          const first = firsts.get(each.id) ?? figure;
          firsts.set(each.id, first);
          return each.kind === "video" ? figure < first + frames : figure <= first;
        });
      if (stats.consumers.length > 0 && missing.length === 0) return stats;
      if (performance.now() - begin > timeoutMs) {
        const which = missing.map(({ id, kind, framesDecoded }) => `${String(kind)} ${id} (${String(framesDecoded)} frames)`).join(", ");
        throw new Error(`not decoding after ${timeoutMs} ms: ${which || "no consumers"}`);
      }
      await sleep(50);
    }
  }

  // Ending

  /** Request `leaveRoom` (unless `ask` is false), then close all that is ours in the room; the socket stays. */
  async leave(ask = true): Promise<void> {
    try {
      if (ask) await this.request("leaveRoom");
    } finally {
      this.roomId = "";
      await this.#closeMedia();
    }
  }

  /** Close everything, the socket last. */
  async close(): Promise<void> {
    await this.#closeMedia();
    this.disconnect();
  }

  // The insides

  protected override received(name: string, payload: unknown): void {
    const { producerId } = (payload ?? {}) as { producerId?: unknown };
    if (name === "newProducer" && this.#auto && typeof producerId === "string") {
      const work: Promise<unknown> = this.consume(producerId, this.#auto)
        .catch((error: unknown) => this.#failures.push(asError("automatic consume", error).message))
        .finally(() => this.#autoWork.delete(work));
      this.#autoWork.add(work);
    } else if (name === "producerClosed") {
      for (const { consumer } of [...this.#consuming.values()]) if (consumer.producerId === producerId) consumer.close();
    } else if (name === "consumerClosed") {
      this.#consuming.get(String((payload as Json).consumerId))?.consumer.close();
    }
  }

  #loaded(): Device {
    if (!this.#device) throw new Error("loadDevice first");
    return this.#device;
  }

  #producer(id: string): types.Producer {
    const found = this.#producers.get(id);
    if (!found) throw new Error(`no producer ${id} here`);
    return found.producer;
  }

  #consumingOf(id: string): Consuming {
    const found = this.#consuming.get(id);
    if (!found) throw new Error(`no consumer ${id} here`);
    return found;
  }

  #transport(direction: Direction): Promise<types.Transport> {
    return (this.#transports[direction] ??= this.#makeTransport(direction).catch((error: unknown) => {
      delete this.#transports[direction];
      throw error;
    }));
  }

  async #makeTransport(direction: Direction, told?: (ack: Json) => void): Promise<types.Transport> {
    const device = this.#loaded();
    const role = direction === "send" ? "Producer" : "Consumer";
    const ack = await this.request(`create${role}Transport`);
    told?.(ack);
    const { id, iceParameters, iceCandidates, dtlsParameters, iceServers } = ack as unknown as types.TransportOptions;
    const offered = iceCandidates.filter(({ protocol }) => this.#protocols?.includes(protocol) ?? true);
    const candidates = offered.map((candidate) => {
      const mapped = this.#portMap.get(candidate.port) ?? this.#portMap.get(0);
      if (!mapped) return candidate;
      const { port, address = candidate.address } = mapped;
      return { ...candidate, port, address, ip: address };
    });
    const options = {
      id,
      iceParameters,
      iceCandidates: candidates,
      dtlsParameters,
      ...(iceServers ? { iceServers } : {}),
      iceTransportPolicy: this.#policy,
    };
    const transport = direction === "send" ? device.createSendTransport(options) : device.createRecvTransport(options);
    this.#transportStates[direction] = [transport.connectionState];
    transport.on("connect", ({ dtlsParameters: own }, done, failed) => {
      this.request(`connect${role}Transport`, { dtlsParameters: own }).then(() => done(), failed);
    });
    transport.on("produce", ({ kind, rtpParameters, appData }, done, failed) => {
      this.request("produce", { kind, rtpParameters, appData }).then((answer) => done({ id: String(answer.id) }), failed);
    });
    transport.on("connectionstatechange", (state) => this.#transportStates[direction].push(state));
    return transport;
  }

  #stopWatching(): void {
    for (const watch of this.#watches.values()) watch.stop();
    this.#watches.clear();
  }

  async #closeMedia(): Promise<void> {
    this.#auto = undefined;
    this.#stopWatching();
    const transports = Object.values(this.#transports);
    this.#transports = {};
    for (const each of transports) (await each.catch(() => undefined))?.close();
    for (const { track } of this.#producers.values()) track.stop();
    this.#producers.clear();
    for (const { consumer } of [...this.#consuming.values()]) consumer.close();
  }
}

function attach(consumer: types.Consumer): HTMLMediaElement {
  const element = document.createElement(consumer.kind);
  element.id = `consumer-${consumer.producerId}`;
  element.autoplay = true;
  element.muted = consumer.kind === "video";
  if (element instanceof HTMLVideoElement) {
    element.playsInline = true;
    element.width = 320;
  }
  element.srcObject = new MediaStream([consumer.track]);
  document.body.append(element);
  element.play().catch(() => undefined); // measured by what is decoded, not by what is heard
  return element;
}

function codecIds(parameters: types.RtpParameters): Json {
  const { encodings = [], codecs } = parameters;
  return {
    codec: codecs[0]?.mimeType ?? null,
    ssrcs: encodings.map(({ ssrc }) => ssrc ?? null),
    rids: encodings.map(({ rid }) => rid ?? null),
  };
}

function asError(what: string, error: unknown): Error {
  const message = error instanceof Error ? error.message : String(error);
  return new Error(message.startsWith(what) ? message : `${what}: ${message}`);
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
