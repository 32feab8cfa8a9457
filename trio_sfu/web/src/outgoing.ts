// What this person sends: it holds what is wanted, and brings the session and the server to it. Owned by the call.

import type { types } from "mediasoup-client";
import type { ProducerScore, Source } from "./protocol";
import type { Stay } from "./session";
import { codeOf } from "./signalling";

interface LocalMedia {
  track: MediaStreamTrack | null;
  paused: boolean;
}

export class Outgoing {
  readonly #stay: Stay;
  readonly #notice: (text: string) => void;
  readonly #local = new Map<Source, LocalMedia>();
  /** By producer id: what the server has been told, and what it has told. */
  readonly #toldPaused = new Map<string, boolean>();
  readonly #wanted = new Map<string, number>();
  readonly #scores = new Map<string, ProducerScore[]>();
  /** Producers that the server has yet to be told are closed. */
  readonly #unclosed = new Set<string>();
  #work: Promise<void> = Promise.resolve();

  constructor(stay: Stay, notice: (text: string) => void) {
    this.#stay = stay;
    this.#notice = notice;
  }

  /** Send this track as `source` from now on, in place of one sent before. */
  send(source: Source, track: MediaStreamTrack, paused = false): Promise<void> {
    this.#local.set(source, { track, paused });
    return this.#sync(source);
  }

  /** Stop sending for the moment; with `release`, let go of the track too (the camera's light goes out). */
  pause(source: Source, release: boolean): Promise<void> {
    const local = this.#local.get(source);
    if (!local) return Promise.resolve();
    this.#local.set(source, { track: release ? null : local.track, paused: true });
    return this.#sync(source);
  }

  /** Stop sending `source` for good. */
  stop(source: Source): Promise<void> {
    this.#local.delete(source);
    return this.#sync(source);
  }

  /** Bring all of it to what is wanted: in a new session, on a new transport, or on a resumed line. */
  syncAll(): void {
    const sources = new Set([...this.#local.keys(), ...(this.#stay.session?.producers.keys() ?? [])]);
    for (const source of sources) void this.#sync(source);
  }

  /** A session is over, and its producers with it. */
  forget(): void {
    for (const told of [this.#toldPaused, this.#wanted, this.#scores, this.#unclosed]) told.clear();
  }

  /** The highest of a producer's encodings that anybody watches, null where nobody does: the rest need not be made. */
  layersWanted(producerId: string, layer: number | null): void {
    this.#wanted.set(producerId, layer ?? 0);
    const producer = [...(this.#stay.session?.producers.values() ?? [])].find(({ id }) => id === producerId);
    if (producer) this.#limit(producer); // else the answer to `produce` is still on its way
  }

  scored(producerId: string, scores: ProducerScore[]): void {
    this.#scores.set(producerId, scores);
  }

  scores(producerId: string): ProducerScore[] {
    return this.#scores.get(producerId) ?? [];
  }

  #sync(source: Source): Promise<void> {
    // One after the other: each looks at what is wanted by then, so that quick clicks end in the last one's state.
    const done = this.#work.then(() => this.#syncNow(source));
    this.#work = done.catch(() => undefined);
    return done.catch((error: unknown) => {
      // Without a line, its coming back comes back to this.
      if (!this.#stay.session?.ready || codeOf(error) === "disconnected" || !this.#stay.signalling?.connected) return;
      this.#notice(`Your ${source} could not be sent: ${error instanceof Error ? error.message : String(error)}`);
    });
  }

  async #syncNow(source: Source): Promise<void> {
    const { session, signalling, roomId } = this.#stay;
    if (!session?.ready || !signalling) return; // entering the room comes back to it
    const local = this.#local.get(source);
    let producer = session.producers.get(source);
    if (!local && producer) {
      this.#unclosed.add(producer.id);
      producer.close();
    }
    for (const producerId of this.#unclosed) {
      await signalling.request("closeProducer", { roomId, producerId }).catch((error: unknown) => {
        if (!codeOf(error).endsWith("-not-found")) throw error;
      });
      this.#unclosed.delete(producerId);
    }
    if (!local) return;
    if (!producer) {
      if (!local.track || local.track.readyState === "ended" || !signalling.connected) return;
      local.track.enabled = !local.paused; // a disabled track makes a producer that begins paused
      producer = await session.produce(source, local.track);
      this.#toldPaused.set(producer.id, false);
      this.#limit(producer);
    }
    if (producer.track !== local.track) await producer.replaceTrack({ track: local.track });
    if (local.paused && !producer.paused) producer.pause();
    else if (!local.paused && producer.paused) producer.resume();
    if (this.#toldPaused.get(producer.id) === local.paused) return;
    await signalling.request(local.paused ? "pauseProducer" : "resumeProducer", { roomId, producerId: producer.id });
    this.#toldPaused.set(producer.id, local.paused);
  }

  #limit(producer: types.Producer): void {
    const layer = this.#wanted.get(producer.id);
    const layers = producer.rtpParameters.encodings?.length ?? 1;
    if (layer === undefined || layers < 2) return;
    // Closed meanwhile: nothing is left to limit.
    producer.setMaxSpatialLayer(Math.min(layer, layers - 1)).catch(() => undefined);
  }
}
