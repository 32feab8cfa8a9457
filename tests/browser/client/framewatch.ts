// What a video track shows from now on, frame by frame as the decoder hands them out, whether or not the page draws.

interface Frame {
  readonly displayWidth: number;
  readonly displayHeight: number;
  close(): void;
}

declare global {
  const MediaStreamTrackProcessor: (new (init: { track: MediaStreamTrack }) => { readable: ReadableStream<Frame> }) | undefined;
}

/** Times are `performance.now()`, in milliseconds. */
export interface Watched {
  sinceMs: number;
  frames: number;
  /** The longest time between two frames, up to now. */
  longestGapMs: number;
  /** Every time between two frames of at least `LONG_GAP_MS`, with its end; one that lasts yet is the last. The latest 1000. */
  gaps: { atMs: number; ms: number }[];
  /** The size of the first frame, and each change of it, with the number of frames before it. The latest 1000. */
  sizes: { atMs: number; width: number; height: number; frames: number }[];
}

const LONG_GAP_MS = 150;
const MOST = 1000;

export class FrameWatch {
  readonly #copy: MediaStreamTrack;
  readonly #reader: ReadableStreamDefaultReader<Frame>;
  #last = performance.now();
  #watched: Watched = { sinceMs: this.#last, frames: 0, longestGapMs: 0, gaps: [], sizes: [] };

  constructor(track: MediaStreamTrack) {
    if (typeof MediaStreamTrackProcessor !== "function") throw new Error("this browser has no MediaStreamTrackProcessor");
    this.#copy = track.clone();
    this.#reader = new MediaStreamTrackProcessor({ track: this.#copy }).readable.getReader();
    void this.#read();
  }

  result(): Watched {
    const { longestGapMs, gaps, ...rest } = structuredClone(this.#watched);
    const atMs = performance.now();
    const ms = atMs - this.#last;
    return { ...rest, longestGapMs: Math.max(longestGapMs, ms), gaps: ms < LONG_GAP_MS ? gaps : [...gaps, { atMs, ms }] };
  }

  stop(): void {
    this.#copy.stop();
    this.#reader.cancel().catch(() => undefined);
  }

  async #read(): Promise<void> {
    for (;;) {
      const { value, done } = await this.#reader.read();
      if (done) return;
      const { displayWidth: width, displayHeight: height } = value;
      value.close();
      this.#note(width, height);
    }
  }

  #note(width: number, height: number): void {
    const atMs = performance.now();
    const ms = atMs - this.#last;
    const watched = this.#watched;
    const size = watched.sizes.at(-1);
    this.#last = atMs;
    watched.longestGapMs = Math.max(watched.longestGapMs, ms);
    if (ms >= LONG_GAP_MS) push(watched.gaps, { atMs, ms });
    if (size?.width !== width || size.height !== height) push(watched.sizes, { atMs, width, height, frames: watched.frames });
    watched.frames++;
  }
}

function push<Item>(list: Item[], item: Item): void {
  list.push(item);
  if (list.length > MOST) list.shift();
}
