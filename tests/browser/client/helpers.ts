// What the parts of the client share.

import type { types } from "mediasoup-client";
import type { Json } from "./wire";

/** A stream's codec, SSRCs and rids. */
export function codecIds(parameters: types.RtpParameters): Json {
  const { encodings = [], codecs } = parameters;
  return {
    codec: codecs[0]?.mimeType ?? null,
    ssrcs: encodings.map(({ ssrc }) => ssrc ?? null),
    rids: encodings.map(({ rid }) => rid ?? null),
  };
}

/** An error that begins with `what` failed. */
export function asError(what: string, error: unknown): Error {
  const message = error instanceof Error ? error.message : String(error);
  return new Error(message.startsWith(what) ? message : `${what}: ${message}`);
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
