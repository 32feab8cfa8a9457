// What the tests' client receives: each consumer has an element of its own, and how it began is timed.

import type { types } from "mediasoup-client";
import { firstFrame, type Timing } from "./firstframe";
import { asError, codecIds } from "./helpers";
import { Producers } from "./producers";
import { DEFAULT_TIMEOUT_MS, type Json } from "./wire";

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
export class Consumers extends Producers {
  protected readonly consuming = new Map<string, Consuming>();
  #failures: string[] = [];
  #auto: ConsumeOptions | undefined;
  #autoWork = new Set<Promise<unknown>>();

  /** Consume a producer, show it in an element of its own (`#consumer-<producerId>`), and time its first frame. */
  async consume(producerId: string, options: ConsumeOptions = {}): Promise<Consumed> {
    const { paused = false, resume = true, wait = true, timeoutMs = DEFAULT_TIMEOUT_MS } = options;
    const transport = await this.transport("recv");
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
    this.consuming.set(consumer.id, { consumer, element, result });
    consumer.observer.on("close", () => {
      element.remove();
      this.consuming.delete(consumer.id);
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
    return [...this.consuming.values()].map(({ result }) => result);
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

  // The insides

  protected override received(name: string, payload: unknown): void {
    const { producerId } = (payload ?? {}) as { producerId?: unknown };
    if (name === "newProducer" && this.#auto && typeof producerId === "string") {
      const work: Promise<unknown> = this.consume(producerId, this.#auto)
        .catch((error: unknown) => this.#failures.push(asError("automatic consume", error).message))
        .finally(() => this.#autoWork.delete(work));
      this.#autoWork.add(work);
    } else if (name === "producerClosed") {
      for (const { consumer } of [...this.consuming.values()]) if (consumer.producerId === producerId) consumer.close();
    } else if (name === "consumerClosed") {
      this.consuming.get(String((payload as Json).consumerId))?.consumer.close();
    }
  }

  protected closeConsumers(): void {
    for (const { consumer } of [...this.consuming.values()]) consumer.close();
  }

  #consumingOf(id: string): Consuming {
    const found = this.consuming.get(id);
    if (!found) throw new Error(`no consumer ${id} here`);
    return found;
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
