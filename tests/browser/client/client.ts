// One user in one room at a time. Speaks only what the server's protocol describes. Its parts build on each other:
// wire.ts, transports.ts, producers.ts, consumers.ts; here is what is measured of all, and how it ends.

import { Consumers } from "./consumers";
import { FrameWatch, type Watched } from "./framewatch";
import { sleep } from "./helpers";
import { type Figures, StatsReader } from "./stats";
import type { Direction } from "./transports";
import { DEFAULT_TIMEOUT_MS, type Json } from "./wire";

export class SfuClient extends Consumers {
  #stats = new StatsReader();
  #watches = new Map<string, FrameWatch>();

  // Measuring

  /** From now on watch the frames of every video that is consumed now; again: begin anew. */
  watchFrames(): void {
    this.#stopWatching();
    for (const { consumer } of this.consuming.values()) {
      if (consumer.kind === "video") this.#watches.set(consumer.id, new FrameWatch(consumer.track));
    }
  }

  /** What has been seen since `watchFrames`, by the consumer's id. */
  watched(): Record<string, Watched> {
    return Object.fromEntries([...this.#watches].map(([id, watch]) => [id, watch.result()]));
  }

  async stats(): Promise<Json> {
    const transport = async (direction: Direction): Promise<Figures | null> => {
      const found = await this.opened(direction);
      if (!found) return null;
      return { connectionState: found.connectionState, ...this.#stats.transport(await found.getStats()) };
    };
    const producers = [...this.producers.values()].map(async ({ producer }) => ({
      id: producer.id,
      kind: producer.kind,
      paused: producer.paused,
      streams: this.#stats.outbound(await producer.getStats()),
    }));
    const consumers = [...this.consuming.values()].map(async ({ consumer, element }) => ({
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

  #stopWatching(): void {
    for (const watch of this.#watches.values()) watch.stop();
    this.#watches.clear();
  }

  async #closeMedia(): Promise<void> {
    this.autoConsume(null);
    this.#stopWatching();
    await this.closeTransports();
    this.closeProducers();
    this.closeConsumers();
  }
}
