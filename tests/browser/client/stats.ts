// getStats, picked and named for the tests: one flat object for each producer's stream and each consumer.

type Entry = Record<string, unknown> & { id: string; type: string; timestamp: number };
export type Figures = Record<string, number | string | boolean | null>;

const OUTBOUND = [
  "ssrc", "rid", "active", "bytesSent", "headerBytesSent", "packetsSent", "retransmittedPacketsSent",
  "retransmittedBytesSent", "targetBitrate", "framesEncoded", "framesSent", "framesPerSecond", "keyFramesEncoded",
  "frameWidth", "frameHeight", "nackCount", "pliCount", "firCount", "qualityLimitationReason", "encoderImplementation",
  "scalabilityMode",
];
const REMOTE_INBOUND = ["packetsLost", "fractionLost", "jitter", "roundTripTime", "totalRoundTripTime"];
const INBOUND = [
  "ssrc", "bytesReceived", "headerBytesReceived", "packetsReceived", "packetsLost", "packetsDiscarded", "jitter",
  "framesReceived", "framesDecoded", "framesDropped", "framesPerSecond", "keyFramesDecoded", "frameWidth", "frameHeight",
  "freezeCount", "totalFreezesDuration", "pauseCount", "totalPausesDuration", "totalInterFrameDelay", "nackCount",
  "pliCount", "firCount", "retransmittedPacketsReceived", "retransmittedBytesReceived", "jitterBufferDelay",
  "jitterBufferEmittedCount", "audioLevel", "totalAudioEnergy", "totalSamplesReceived", "totalSamplesDuration",
  "concealedSamples", "silentConcealedSamples", "concealmentEvents", "decoderImplementation", "estimatedPlayoutTimestamp",
  "lastPacketReceivedTimestamp",
];
const REMOTE_OUTBOUND = ["reportsSent", "remoteTimestamp", "packetsSent", "bytesSent"];
const PAIR = [
  "state", "nominated", "bytesSent", "bytesReceived", "packetsSent", "packetsReceived", "availableOutgoingBitrate",
  "availableIncomingBitrate", "currentRoundTripTime", "totalRoundTripTime", "requestsSent", "responsesReceived",
  "consentRequestsSent",
];
const TRANSPORT = ["dtlsState", "dtlsRole", "iceState", "tlsVersion", "dtlsCipher", "srtpCipher", "selectedCandidatePairChanges"];

/** Bit rates are between two calls of `sample` with the same report's streams: null at the first. */
export class StatsReader {
  readonly #before = new Map<string, { bytes: number; at: number }>();

  /** One entry for each stream sent: a producer's encodings, with what the server reported of each. */
  outbound(report: RTCStatsReport): Figures[] {
    const entries = [...report.values()] as Entry[];
    return entries
      .filter(({ type }) => type === "outbound-rtp")
      .map((entry) => ({
        ...pick(entry, OUTBOUND),
        codec: codecOf(report, entry),
        bitrate: this.#bitrate(`out ${String(entry.ssrc)}`, entry, "bytesSent"),
        ...prefixed("remote", find(entries, (each) => each.type === "remote-inbound-rtp" && each.ssrc === entry.ssrc), REMOTE_INBOUND),
      }));
  }

  inbound(report: RTCStatsReport): Figures {
    const entries = [...report.values()] as Entry[];
    const entry = find(entries, ({ type }) => type === "inbound-rtp");
    if (!entry) return pick(undefined, INBOUND);
    return {
      ...pick(entry, INBOUND),
      codec: codecOf(report, entry),
      bitrate: this.#bitrate(`in ${String(entry.ssrc)}`, entry, "bytesReceived"),
      ...prefixed("remote", find(entries, (each) => each.type === "remote-outbound-rtp" && each.ssrc === entry.ssrc), REMOTE_OUTBOUND),
    };
  }

  /** The DTLS transport and its selected candidate pair. */
  transport(report: RTCStatsReport): Figures {
    const entries = [...report.values()] as Entry[];
    const transport = find(entries, ({ type }) => type === "transport");
    const pair = find(entries, ({ id }) => id === transport?.selectedCandidatePairId);
    const remote = find(entries, ({ id }) => id === pair?.remoteCandidateId);
    return {
      ...pick(transport, TRANSPORT),
      ...pick(pair, PAIR),
      remoteAddress: text(remote?.address),
      remotePort: typeof remote?.port === "number" ? remote.port : null,
    };
  }

  #bitrate(key: string, entry: Entry, field: string): number | null {
    const bytes = Number(entry[field] ?? 0);
    const before = this.#before.get(key);
    if (before && before.at === entry.timestamp) return null; // Chromium gave the same figures again
    this.#before.set(key, { bytes, at: entry.timestamp });
    return before ? ((bytes - before.bytes) * 8000) / (entry.timestamp - before.at) : null;
  }
}

function find(entries: Entry[], test: (entry: Entry) => boolean): Entry | undefined {
  return entries.find(test);
}

function pick(entry: Entry | undefined, names: string[]): Figures {
  const picked: Figures = {};
  for (const name of names) {
    const value = entry?.[name];
    picked[name] = typeof value === "number" || typeof value === "string" || typeof value === "boolean" ? value : null;
  }
  return picked;
}

/** `remote` + `packetsLost` → `remotePacketsLost`. */
function prefixed(prefix: string, entry: Entry | undefined, names: string[]): Figures {
  const named = Object.entries(pick(entry, names));
  return Object.fromEntries(named.map(([name, value]) => [prefix + name.replace(/^remote/, "").replace(/^./, (c) => c.toUpperCase()), value]));
}

function codecOf(report: RTCStatsReport, entry: Entry): string | null {
  const codec = report.get(String(entry.codecId)) as Entry | undefined;
  return text(codec?.mimeType);
}

function text(value: unknown): string | null {
  return typeof value === "string" ? value : null;
}
