// What the others send: found out, received, and kept in step with what the server tells. Owned by the call.

import type { types } from "mediasoup-client";
import { Demand, firstLayer, type Look } from "./demand";
import type { ConsumerScore, ProducerInfo, Source } from "./protocol";
import type { Session, Stay } from "./session";
import { codeOf, type Signalling } from "./signalling";

/** A video that stops for less is not worth a word. */
const HELD_AFTER_MS = 1_000;

/** Something another participant sends. `consumer` is there once it is being received. */
export interface RemoteMedia {
  readonly producerId: string;
  readonly userId: string;
  readonly kind: types.MediaKind;
  source: Source;
  paused: boolean;
  consumer?: types.Consumer;
  /** How many encodings there are to choose from, and the one that comes; null: none, undefined: not told. */
  layers?: number;
  layer?: number | null;
  temporalLayer?: number | null;
  score?: ConsumerScore;
  heldTimer?: ReturnType<typeof setTimeout>;
  /** The consuming under way or done; a newer one makes an older one's outcome void. */
  asked?: {
    /** An event told of `paused` meanwhile: its word is newer than the answer's. */
    pausedTold: boolean;
  };
}

export interface IncomingView {
  /** The long side, in device pixels, that a video will have; undefined: that is not known. */
  widthOf(media: RemoteMedia): number | undefined;
  mediaAdded(media: RemoteMedia, consumer: types.Consumer): void;
  mediaRemoved(media: RemoteMedia): void;
  mediaPaused(media: RemoteMedia): void;
  /** The server holds a video back for want of bandwidth, or nothing comes of it; or it comes again. */
  mediaHeld(media: RemoteMedia, held: boolean): void;
  notice(text: string): void;
}

export class Incoming {
  readonly #stay: Stay;
  readonly #view: IncomingView;
  readonly #usersChanged: () => void;
  readonly #media = new Map<string, RemoteMedia>();
  readonly #demand: Demand;

  constructor(stay: Stay, view: IncomingView, usersChanged: () => void) {
    this.#stay = stay;
    this.#view = view;
    this.#usersChanged = usersChanged;
    this.#demand = new Demand(stay, (producerId) => this.#judge(this.#media.get(producerId)));
  }

  /** Who sends anything. */
  get userIds(): Set<string> {
    return new Set([...this.#media.values()].map(({ userId }) => userId));
  }

  /** What is being received. */
  get media(): RemoteMedia[] {
    return [...this.#media.values()].filter(({ consumer }) => consumer);
  }

  listen(signalling: Signalling): void {
    const { roomId } = this.#stay;
    signalling.on("newProducer", (producer) => this.discover(producer));
    signalling.on("producerClosed", ({ producerId }) => this.#forget(producerId));
    signalling.on("producerPaused", ({ producerId }) => this.#setPaused(producerId, true));
    signalling.on("producerResumed", ({ producerId }) => this.#setPaused(producerId, false));
    signalling.on("consumerClosed", ({ consumerId, producerId }) => {
      const media = this.#media.get(producerId);
      if (media?.consumer?.id === consumerId) this.#detach(media);
    });
    signalling.on("roomProducersChanged", (payload) => {
      if (payload.roomId === roomId) this.reconcile(payload.producers);
    });
    signalling.on("layersChanged", ({ consumerId, spatialLayer, temporalLayer }) => {
      const media = this.#of(consumerId);
      if (!media) return;
      media.layer = spatialLayer;
      media.temporalLayer = temporalLayer;
      this.#judge(media);
    });
    signalling.on("score", ({ consumerId, score }) => {
      const media = consumerId === undefined ? undefined : this.#of(consumerId);
      if (media && !Array.isArray(score)) media.score = score;
    });
  }

  look(producerId: string, look: Look): void {
    this.#demand.look(producerId, look);
  }

  discover({ userId, producerId, kind, appData, paused }: ProducerInfo): void {
    const { session } = this.#stay;
    if (!session?.ready || userId === this.#stay.me || this.#media.has(producerId)) return;
    const media: RemoteMedia = { producerId, userId, kind, source: sourceOf(kind, appData?.source), paused: paused ?? false };
    this.#media.set(producerId, media);
    this.#usersChanged();
    void this.#receive(session, media);
  }

  /** These are all producers of the room. */
  reconcile(producers: ProducerInfo[]): void {
    const present = new Set(producers.map(({ producerId }) => producerId));
    for (const producerId of [...this.#media.keys()]) if (!present.has(producerId)) this.#forget(producerId);
    for (const producer of producers) this.discover(producer);
  }

  /** On a resumed line: these are all producers of the others, and what was missed of them is made up for. */
  resync(producers: ProducerInfo[]): void {
    this.reconcile(producers);
    const { session } = this.#stay;
    for (const { producerId, paused } of producers) {
      const media = this.#media.get(producerId);
      if (!media || !session) continue;
      if (paused !== undefined && media.paused !== paused) this.#setPaused(producerId, paused);
      if (!media.consumer) void this.#receive(session, media);
    }
    this.#demand.again();
  }

  /** Receive everything anew, on a new transport. */
  receiveAgain(session: Session): void {
    for (const media of this.#media.values()) {
      this.#detach(media);
      void this.#receive(session, media);
    }
  }

  clear(): void {
    for (const producerId of [...this.#media.keys()]) this.#forget(producerId);
  }

  async #receive(session: Session, media: RemoteMedia): Promise<void> {
    const asked = { pausedTold: false };
    media.asked = asked;
    const current = (): boolean =>
      !session.closed && media.asked === asked && this.#media.get(media.producerId) === media;
    try {
      const { producerId, kind } = media;
      const layer = kind === "video" ? firstLayer(this.#view.widthOf(media), media.source) : undefined;
      const { consumer, layers, source, paused } = await session.consume(producerId, layer);
      if (!current() || consumer.closed) return consumer.close();
      media.source = sourceOf(media.kind, source ?? media.source);
      if (!asked.pausedTold) media.paused = paused;
      media.consumer = consumer;
      media.layers = layers;
      if (kind === "video") this.#demand.add(producerId, consumer.id, layers, media.source, layer);
      this.#view.mediaAdded(media, consumer);
    } catch (error) {
      // A producer or a transport may close while it is being asked for: word of that is on its way.
      if (!current() || codeOf(error).endsWith("-not-found") || codeOf(error) === "disconnected") return;
      const text = error instanceof Error ? error.message : String(error);
      this.#view.notice(`Someone's ${media.source} cannot be shown: ${text}`);
    }
  }

  #of(consumerId: string): RemoteMedia | undefined {
    return [...this.#media.values()].find(({ consumer }) => consumer?.id === consumerId);
  }

  #setPaused(producerId: string, paused: boolean): void {
    const media = this.#media.get(producerId);
    if (!media) return;
    media.paused = paused;
    if (media.asked) media.asked.pausedTold = true;
    if (media.consumer) this.#view.mediaPaused(media);
    this.#judge(media);
  }

  /** See whether a video is held back, in a moment; at once where it is not. */
  #judge(media: RemoteMedia | undefined): void {
    if (!media) return;
    clearTimeout(media.heldTimer);
    if (media.layer !== null) return this.#view.mediaHeld(media, false);
    media.heldTimer = setTimeout(() => {
      // What was paused on purpose, by its sender or by this page, is not held back.
      const held = media.layer === null && !media.paused && !this.#demand.isPaused(media.producerId);
      this.#view.mediaHeld(media, held);
    }, HELD_AFTER_MS);
  }

  #detach(media: RemoteMedia): void {
    if (!media.consumer) return;
    clearTimeout(media.heldTimer);
    this.#demand.remove(media.producerId);
    media.consumer.close();
    media.consumer = media.layer = media.temporalLayer = media.score = undefined;
    this.#view.mediaRemoved(media);
  }

  #forget(producerId: string): void {
    const media = this.#media.get(producerId);
    if (!media) return;
    this.#media.delete(producerId);
    this.#detach(media);
    this.#demand.forget(producerId);
    this.#usersChanged();
  }
}

function sourceOf(kind: types.MediaKind, source: string | undefined): Source {
  if (kind === "audio") return "microphone";
  return source === "screen" ? "screen" : "camera";
}
