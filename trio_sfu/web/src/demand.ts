// What this page asks of each video it receives: whether at all, how large, and which first where there is too little
// bandwidth. The page says how each is looked at; requests follow a little later, and only where something changes.
// Owned by what receives (incoming.ts).

import type { Source } from "./protocol";
import type { Stay } from "./session";
import { codeOf, UNKNOWN_EVENT } from "./signalling";
import { layerFor, LAYERS_UNKNOWN } from "./simulcast";

/** Tiles are resized in many steps. */
const DEBOUNCE_MS = 300;
/** Scrolling past, or a look into another tab, should not cost a keyframe. */
const PAUSE_AFTER_MS = 2_000;

/** How a video is looked at. */
export interface Look {
  /** Whether any of it is on the screen. */
  visible: boolean;
  /** The picture's long side, in device pixels. */
  width: number;
  /** 1…255; what is higher gets bandwidth first. */
  priority: number;
}

interface Item {
  readonly producerId: string;
  readonly consumerId: string;
  readonly layers: number;
  readonly source: Source;
  // As the server has it.
  paused: boolean;
  layer: number;
  priority: number;
  timer?: ReturnType<typeof setTimeout>;
  /** The timer is one for a pause: what changes of a video that nobody sees does not put it off. */
  pausing: boolean;
  work: Promise<void>;
}

export class Demand {
  readonly #stay: Stay;
  readonly #resumed: (producerId: string) => void;
  readonly #looks = new Map<string, Look>();
  readonly #items = new Map<string, Item>();

  /** `resumed` is called when a paused video is to come again. */
  constructor(stay: Stay, resumed: (producerId: string) => void) {
    this.#stay = stay;
    this.#resumed = resumed;
  }

  /** A consumer of video has begun: not paused, the lowest priority, layers up to `layer`, or all. */
  add(producerId: string, consumerId: string, layers: number, source: Source, layer = layers - 1): void {
    this.remove(producerId);
    const asServed = { paused: false, layer: Math.min(layer, layers - 1), priority: 1 };
    const item = { producerId, consumerId, layers, source, ...asServed, pausing: false, work: Promise.resolve() };
    this.#items.set(producerId, item);
    this.#schedule(item);
  }

  remove(producerId: string): void {
    clearTimeout(this.#items.get(producerId)?.timer);
    this.#items.delete(producerId);
  }

  /** A producer is gone for good. */
  forget(producerId: string): void {
    this.remove(producerId);
    this.#looks.delete(producerId);
  }

  look(producerId: string, look: Look): void {
    const before = this.#looks.get(producerId);
    if (before?.visible === look.visible && before.width === look.width && before.priority === look.priority) return;
    this.#looks.set(producerId, look);
    const item = this.#items.get(producerId);
    if (item) this.#schedule(item);
  }

  /** Whether this page has asked for none of it at the moment. */
  isPaused(producerId: string): boolean {
    return this.#items.get(producerId)?.paused ?? false;
  }

  /** Ask again for what could not be asked for. */
  again(): void {
    for (const item of this.#items.values()) this.#schedule(item);
  }

  #schedule(item: Item): void {
    const look = this.#looks.get(item.producerId);
    if (!look || (item.pausing && !look.visible)) return;
    clearTimeout(item.timer);
    item.pausing = !look.visible;
    const delay = !look.visible ? PAUSE_AFTER_MS : item.paused ? 0 : DEBOUNCE_MS;
    item.timer = setTimeout(() => {
      item.pausing = false;
      // One after the other, or a pause could overtake a resumption.
      item.work = item.work.then(() => this.#settle(item)).catch(() => undefined);
    }, delay);
  }

  async #settle(item: Item): Promise<void> {
    const look = this.#looks.get(item.producerId);
    const { signalling, roomId } = this.#stay;
    if (!look || !signalling?.connected || this.#items.get(item.producerId) !== item) return;
    const { consumerId } = item;
    if (look.visible) {
      const spatialLayer = layerFor(look.width, item.layers, item.source);
      if (spatialLayer !== item.layer) {
        await signalling.request("setPreferredLayers", { roomId, consumerId, spatialLayer });
        item.layer = spatialLayer;
      }
      if (look.priority !== item.priority) {
        await signalling.request("setConsumerPriority", { roomId, consumerId, priority: look.priority }).catch(ignoreUnknown);
        item.priority = look.priority;
      }
    }
    if (look.visible === !item.paused) return;
    await signalling.request(look.visible ? "resumeConsumer" : "pauseConsumer", { roomId, consumerId });
    item.paused = !look.visible;
    if (look.visible) this.#resumed(item.producerId);
  }
}

/** The layer to begin with where the long side will be of `width` device pixels; undefined: that is not known. */
export function firstLayer(width: number | undefined, source: Source): number | undefined {
  return width ? layerFor(width, LAYERS_UNKNOWN, source) : undefined;
}

/** A server without priorities serves all alike. */
function ignoreUnknown(error: unknown): void {
  if (codeOf(error) !== UNKNOWN_EVENT) throw error;
}
