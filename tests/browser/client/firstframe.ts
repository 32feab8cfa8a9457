// How long after asking the first frame of a consumer came, in milliseconds, measured in independent ways.

import type { types } from "mediasoup-client";

const POLL_MS = 5;

/** All from just before the `consume` request; null where it did not happen in time (or cannot be known here). */
export interface Timing {
  /** The server's ack of `consume` arrived. */
  ackMs: number;
  /** mediasoup-client's consumer exists: from here on the browser can take its packets. */
  consumerMs: number;
  /** The receiving transport's connection state was seen "connected" (0: it was so before). */
  connectedMs: number | null;
  /** First decoded frame, the best measure there is: the earliest of the three below. For audio: first sound played out. */
  firstMs: number | null;
  /** The track handed its first frame to a MediaStreamTrackProcessor: exact, and independent of drawing. */
  trackMs: number | null;
  /** requestVideoFrameCallback: the frame was ready to be shown; needs a page that draws. */
  shownMs: number | null;
  /** framesDecoded > 0 in getStats, asked every 5 ms (Chromium renews its figures every 50 ms only). */
  statsMs: number | null;
}

type Firsts = Pick<Timing, "firstMs" | "trackMs" | "shownMs" | "statsMs">;

/** Wait until a frame came by every way that works here, or `timeoutMs` after `start`. Never rejects. */
export async function firstFrame(
  consumer: types.Consumer,
  element: HTMLMediaElement,
  start: number,
  timeoutMs: number,
): Promise<Firsts> {
  const since = (): number => performance.now() - start;
  const left = Math.max(0, timeoutMs - since());
  const ended = new Promise<null>((resolve) => setTimeout(() => resolve(null), left));
  if (consumer.kind === "audio") {
    const statsMs = await Promise.race([ended, firstSound(consumer, since, () => since() > timeoutMs)]);
    return { firstMs: statsMs, trackMs: null, shownMs: null, statsMs };
  }
  const track = Promise.race([ended, fromTrack(consumer.track, since)]);
  const stats = Promise.race([ended, fromStats(consumer, since, () => since() > timeoutMs)]);
  const shown = Promise.race([ended, fromElement(element as HTMLVideoElement, since)]);
  const [trackMs, statsMs] = await Promise.all([track, stats]);
  // A page that does not draw never shows a frame: wait for that only a little longer.
  const shownMs = await Promise.race([shown, new Promise<null>((resolve) => setTimeout(() => resolve(null), 200))]);
  const known = [trackMs, statsMs, shownMs].filter((each) => each !== null);
  return { firstMs: known.length ? Math.min(...known) : null, trackMs, shownMs, statsMs };
}

async function fromTrack(track: MediaStreamTrack, since: () => number): Promise<number | null> {
  if (typeof MediaStreamTrackProcessor !== "function") return null;
  const copy = track.clone();
  const reader = new MediaStreamTrackProcessor({ track: copy }).readable.getReader();
  const { value } = await reader.read();
  const at = since();
  value?.close();
  copy.stop();
  reader.cancel().catch(() => undefined);
  return value ? at : null;
}

function fromElement(element: HTMLVideoElement, since: () => number): Promise<number> {
  return new Promise((resolve) => element.requestVideoFrameCallback(() => resolve(since())));
}

async function fromStats(consumer: types.Consumer, since: () => number, over: () => boolean): Promise<number | null> {
  while (!over() && !consumer.closed) {
    const report = await consumer.getStats();
    const at = since();
    for (const entry of report.values()) if (entry.type === "inbound-rtp" && entry.framesDecoded > 0) return at;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return null;
}

async function firstSound(consumer: types.Consumer, since: () => number, over: () => boolean): Promise<number | null> {
  while (!over() && !consumer.closed) {
    if (consumer.rtpReceiver?.getSynchronizationSources().length) return since();
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return null;
}
