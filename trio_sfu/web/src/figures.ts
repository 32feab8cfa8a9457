// Figures out of the browser's getStats(): of what is sent, what is received, and the way through the network. No DOM.

type Entry = Record<string, unknown> & { id: string; type: string; timestamp: number };

/** One encoding that is sent. Rates are in bit/s; undefined: not known, or not yet. */
export interface SentLayer {
  rid: string;
  active: boolean;
  width?: number;
  height?: number;
  fps?: number;
  bitrate?: number;
  /** What keeps the encoder from more: `none`, `bandwidth`, `cpu` or `other`. */
  limitedBy?: string;
}

export interface Sent {
  codec: string;
  layers: SentLayer[];
  /** In ms, and as a part of 1: by the server's last report. */
  roundTrip?: number;
  loss?: number;
}

export interface ReceivedFigures {
  codec: string;
  width?: number;
  height?: number;
  fps?: number;
  bitrate?: number;
  /** A part of 1, since the last look. */
  loss?: number;
  /** How long what is played waited on the average since the last look, in ms. */
  jitterBuffer?: number;
  freezes?: number;
}

export interface Path {
  /** `udp`, `tcp`, or by a relay, `relay/udp` and the like; empty while there is none. */
  kind: string;
  roundTrip?: number;
  availableOutgoing?: number;
}

/** Rates are between two looks at the same stream: make one reader and keep it. */
export class FigureReader {
  readonly #before = new Map<string, { value: number; at: number }>();

  sent(report: RTCStatsReport): Sent {
    const entries = all(report);
    const streams = entries.filter(({ type }) => type === "outbound-rtp");
    const reports = entries.filter(({ type }) => type === "remote-inbound-rtp");
    const layers = streams.map((entry): SentLayer => ({
      rid: text(entry.rid),
      active: entry.active !== false,
      width: number(entry.frameWidth),
      height: number(entry.frameHeight),
      fps: number(entry.framesPerSecond),
      bitrate: this.#rate(entry, "bytesSent", 8),
      limitedBy: text(entry.qualityLimitationReason) || undefined,
    }));
    layers.sort((one, other) => (one.rid < other.rid ? -1 : 1));
    const times = reports.map(({ roundTripTime }) => number(roundTripTime)).filter((each) => each !== undefined);
    const losses = reports.map(({ fractionLost }) => number(fractionLost)).filter((each) => each !== undefined);
    return {
      codec: codecOf(report, streams[0]),
      layers,
      roundTrip: times.length > 0 ? Math.max(...times) * 1_000 : undefined,
      loss: losses.length > 0 ? Math.max(...losses) : undefined,
    };
  }

  received(report: RTCStatsReport): ReceivedFigures {
    const entry = all(report).find(({ type }) => type === "inbound-rtp");
    if (!entry) return { codec: "" };
    const lost = this.#step(entry, "packetsLost");
    const came = this.#step(entry, "packetsReceived");
    const waited = this.#step(entry, "jitterBufferDelay");
    const played = this.#step(entry, "jitterBufferEmittedCount");
    return {
      codec: codecOf(report, entry),
      width: number(entry.frameWidth),
      height: number(entry.frameHeight),
      fps: number(entry.framesPerSecond),
      bitrate: this.#rate(entry, "bytesReceived", 8),
      // Late packets are taken back out of the count of lost ones.
      loss: lost !== undefined && came ? Math.max(0, lost) / (Math.max(0, lost) + came) : undefined,
      jitterBuffer: waited !== undefined && played ? (waited / played) * 1_000 : undefined,
      freezes: number(entry.freezeCount),
    };
  }

  path(report: RTCStatsReport): Path {
    const entries = all(report);
    const transport = entries.find(({ type }) => type === "transport");
    // Firefox has no "transport", and marks the pair itself.
    const pair =
      entries.find(({ id }) => id === transport?.selectedCandidatePairId) ??
      entries.find(({ type, selected }) => type === "candidate-pair" && selected === true);
    const local = entries.find(({ id }) => id === pair?.localCandidateId);
    const protocol = text(local?.protocol);
    const relayed = local?.candidateType === "relay";
    const roundTrip = number(pair?.currentRoundTripTime);
    return {
      kind: relayed ? `relay/${text(local.relayProtocol) || protocol}` : protocol,
      roundTrip: roundTrip === undefined ? undefined : roundTrip * 1_000,
      availableOutgoing: number(pair?.availableOutgoingBitrate),
    };
  }

  /** By how much a counter grew since the last look. */
  #step(entry: Entry, field: string): number | undefined {
    return this.#since(entry, field)?.step;
  }

  #rate(entry: Entry, field: string, factor: number): number | undefined {
    const since = this.#since(entry, field);
    return since && (since.step * factor * 1_000) / since.elapsed;
  }

  #since(entry: Entry, field: string): { step: number; elapsed: number } | undefined {
    const value = number(entry[field]);
    if (value === undefined) return undefined;
    const key = `${entry.id} ${String(entry.ssrc)} ${field}`;
    const before = this.#before.get(key);
    this.#before.set(key, { value, at: entry.timestamp });
    if (!before || entry.timestamp <= before.at || value < before.value - 1_000) return undefined;
    return { step: value - before.value, elapsed: entry.timestamp - before.at };
  }
}

function all(report: RTCStatsReport): Entry[] {
  return [...report.values()] as Entry[];
}

function codecOf(report: RTCStatsReport, entry: Entry | undefined): string {
  const codec = report.get(text(entry?.codecId)) as Entry | undefined;
  const name = text(codec?.mimeType).replace(/^.*\//, "");
  return name === "opus" ? "Opus" : name;
}

function number(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}
