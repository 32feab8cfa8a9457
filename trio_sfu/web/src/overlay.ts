// The statistics that a person can lay over the call: what is sent, what is received, and how it gets through; by the
// browser's own figures and the server's. Nothing is measured while it is closed.

import type { Call } from "./call";
import { FigureReader } from "./figures";
import type { RemoteMedia } from "./incoming";
import type { ServerStats, Source } from "./protocol";

const EVERY_MS = 1_000;
const SERVER_EVERY_MS = 2_000;
const SOURCES: Record<Source, string> = { camera: "Your camera", microphone: "Your microphone", screen: "Your screen" };
const DIRECTIONS = { send: "Way to the server", receive: "Way from the server" };

/** One line: `name` is for programs, `value` the bare number. Nothing known: no text. */
interface Row {
  name: string;
  label: string;
  text: string;
  value?: number;
}

interface Section {
  title: string;
  /** For programs: what it is about. */
  about: string;
  rows: Row[];
}

export class Overlay {
  readonly #panel: HTMLElement;
  readonly #titleOf: (media: RemoteMedia) => string;
  #reader = new FigureReader();
  #timer: ReturnType<typeof setInterval> | undefined;
  #server: ServerStats[] = [];
  #serverAskedAt = -Infinity;
  #busy = false;

  constructor(panel: HTMLElement, titleOf: (media: RemoteMedia) => string) {
    this.#panel = panel;
    this.#titleOf = titleOf;
  }

  get isOpen(): boolean {
    return !this.#panel.hidden;
  }

  open(call: Call): void {
    this.close();
    this.#panel.hidden = false;
    this.#reader = new FigureReader();
    this.#server = [];
    this.#timer = setInterval(() => void this.#refresh(call), EVERY_MS);
    void this.#refresh(call);
  }

  close(): void {
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#panel.hidden = true;
    this.#panel.replaceChildren();
  }

  async #refresh(call: Call): Promise<void> {
    if (this.#busy || document.hidden) return;
    this.#busy = true;
    try {
      await this.#askServer(call);
      const sections = await this.#read(call);
      if (this.#timer !== undefined) this.#panel.replaceChildren(...sections.map(rendered));
    } catch {
      // What closes while it is looked at has no figures; the next look is in a second.
    } finally {
      this.#busy = false;
    }
  }

  /** At most once in two seconds. A server that does not answer leaves its figures out. */
  async #askServer(call: Call): Promise<void> {
    const now = performance.now();
    if (now - this.#serverAskedAt < SERVER_EVERY_MS) return;
    this.#serverAskedAt = now;
    this.#server = await call.serverStats().catch(() => []);
  }

  async #read(call: Call): Promise<Section[]> {
    const sections: Section[] = [];
    for (const [direction, transport] of call.session?.transports ?? []) {
      const path = this.#reader.path(await transport.getStats());
      const server = this.#server.find(({ transportId }) => transportId === transport.id);
      sections.push({
        title: DIRECTIONS[direction],
        about: direction,
        rows: [
          { name: "path", label: "Goes by", text: pathWords(path.kind) },
          milliseconds("roundTrip", "Round trip", path.roundTrip),
          ...(direction === "send"
            ? [bitrate("available", "Could send", path.availableOutgoing)]
            : [bitrate("available", "Could receive", numeric(server?.availableOutgoingBitrate))]),
        ],
      });
    }
    for (const [source, producer] of call.session?.producers ?? []) {
      const sent = this.#reader.sent(await producer.getStats());
      const server = this.#server.filter(({ type, producerId }) => type === "inbound-rtp" && producerId === producer.id);
      const scores = call.outgoing.scores(producer.id);
      const unsent = new Set(sent.layers.filter(({ active }) => !active).map(({ rid }) => rid));
      const marks = scores.map(({ rid = "", score }) => (unsent.has(rid) ? "–" : String(score)));
      sections.push({
        title: SOURCES[source],
        about: source,
        rows: [
          { name: "codec", label: "Codec", text: sent.codec },
          ...sent.layers.map((layer) => ({
            name: "layer",
            label: layer.rid ? `Layer ${layer.rid}` : "Sent",
            text: layer.active
              ? joined(picture(layer), shownRate(layer.bitrate), limited(layer.limitedBy))
              : "not sent: nobody watches it",
            value: layer.bitrate,
          })),
          milliseconds("roundTrip", "Round trip", sent.roundTrip),
          percent("loss", "Loss", sent.loss),
          ...(server.length > 0 ? [bitrate("serverBitrate", "Server gets", sum(server.map((each) => each.bitrate)))] : []),
          { name: "score", label: "Score", text: marks.join(" / "), value: scores[0]?.score },
        ],
      });
    }
    for (const media of call.media) {
      const { consumer } = media;
      if (!consumer || consumer.closed) continue;
      const received = this.#reader.received(await consumer.getStats());
      const server = this.#server.find(({ consumerId }) => consumerId === consumer.id);
      sections.push({
        title: `${this.#titleOf(media)}: ${media.kind === "audio" ? "sound" : "picture"}`,
        about: media.producerId,
        rows: [
          { name: "codec", label: "Codec", text: received.codec },
          { name: "size", label: "Picture", text: picture(received), value: received.width },
          bitrate("bitrate", "Bit rate", received.bitrate),
          percent("loss", "Loss", received.loss),
          milliseconds("jitterBuffer", "Jitter buffer", received.jitterBuffer),
          ...(media.kind === "video"
            ? [{ name: "freezes", label: "Freezes", text: String(received.freezes ?? ""), value: received.freezes }]
            : []),
          { name: "layers", label: "Layer", text: layerWords(media) },
          { name: "score", label: "Score", text: String(media.score?.score ?? ""), value: media.score?.score },
          ...(server ? [bitrate("serverBitrate", "Server sends", numeric(server.bitrate))] : []),
        ],
      });
    }
    return sections;
  }
}

function rendered({ title, about, rows }: Section): HTMLElement {
  const section = document.createElement("section");
  section.dataset.about = about;
  const heading = document.createElement("h2");
  heading.textContent = title;
  const list = document.createElement("dl");
  for (const { name, label, text, value } of rows) {
    if (text === "") continue;
    const term = document.createElement("dt");
    term.textContent = label;
    const definition = document.createElement("dd");
    definition.textContent = text;
    definition.dataset.name = name;
    if (value !== undefined) definition.dataset.value = String(value);
    list.append(term, definition);
  }
  section.append(heading, list);
  return section;
}

function picture({ width, height, fps }: { width?: number; height?: number; fps?: number }): string {
  if (!width || !height) return "";
  return joined(`${width} × ${height}`, fps === undefined ? "" : `${Math.round(fps)} fps`);
}

function pathWords(kind: string): string {
  const relayed = kind.startsWith("relay/");
  return joined(kind.replace("relay/", "").toUpperCase(), relayed ? "by a relay" : "");
}

/** Which of its layers comes, counted from 1. */
function layerWords({ layers = 1, layer, temporalLayer }: RemoteMedia): string {
  if (layer === null) return "none";
  if (layers < 2 || layer === undefined) return "";
  const frames = typeof temporalLayer === "number" ? `, frames ${temporalLayer + 1}` : "";
  return `${layer + 1} of ${layers}${frames}`;
}

function limited(by: string | undefined): string {
  if (by === "bandwidth") return "held down by bandwidth";
  return by === "cpu" ? "held down by this machine" : "";
}

function bitrate(name: string, label: string, value: number | undefined): Row {
  return { name, label, text: shownRate(value), value };
}

function shownRate(value: number | undefined): string {
  if (value === undefined) return "";
  return value >= 1e6 ? `${(value / 1e6).toFixed(1)} Mb/s` : `${Math.round(value / 1e3)} kb/s`;
}

function milliseconds(name: string, label: string, value: number | undefined): Row {
  return { name, label, text: value === undefined ? "" : `${Math.round(value)} ms`, value };
}

function percent(name: string, label: string, value: number | undefined): Row {
  return { name, label, text: value === undefined ? "" : `${(value * 100).toFixed(1)} %`, value };
}

function joined(...parts: string[]): string {
  return parts.filter((part) => part !== "").join(" · ");
}

function sum(values: unknown[]): number {
  return values.reduce<number>((total, value) => total + (numeric(value) ?? 0), 0);
}

function numeric(value: unknown): number | undefined {
  return typeof value === "number" ? value : undefined;
}
