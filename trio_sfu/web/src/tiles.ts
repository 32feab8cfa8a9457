// The tiles: one for each participant and each shared screen, their layout, and who is speaking.

import type { types } from "mediasoup-client";
import type { Peer, RemoteMedia } from "./call";

const RATIO = 16 / 9;
const GAP = 8; // CSS pixels, as in style.css
const SMALLEST = 130;
const SPEAKING_LEVEL = 0.03; // of 0…1; about -30 dBov
const SPEAKING_HOLD_MS = 600;
const LEVELS_EVERY_MS = 150;

export interface TileOptions {
  userId: string;
  name: string;
  screen?: boolean;
  /** One's own: said in the caption, never heard, and a camera is shown as in a mirror. */
  own?: boolean;
}

export class Tile {
  readonly element = document.createElement("article");
  readonly userId: string;
  readonly #screen: boolean;
  readonly #own: boolean;
  readonly #video = document.createElement("video");
  readonly #audio = document.createElement("audio");
  readonly #initials = document.createElement("span");
  readonly #caption = document.createElement("span");
  readonly #status = document.createElement("span");
  #videoId = "";
  #audioId = "";
  #hasVideo = false;
  #muted = true;
  #spokeAt = -Infinity;
  /** Audio level now, 0…1; undefined where none is known. */
  level: () => number | undefined = () => undefined;

  constructor({ userId, name, screen = false, own = false }: TileOptions) {
    this.userId = userId;
    this.#screen = screen;
    this.#own = own;
    this.element.className = "tile";
    this.element.dataset.testid = "tile";
    this.element.dataset.userId = userId;
    this.element.dataset.source = screen ? "screen" : "camera";
    this.element.dataset.own = String(own);
    this.#video.autoplay = true;
    this.#video.muted = true; // sound has an element of its own: it must not wait for a picture
    this.#video.playsInline = true;
    this.#video.setAttribute("playsinline", "");
    this.#audio.autoplay = true;
    this.#initials.className = "initials";
    this.#initials.setAttribute("aria-hidden", "true");
    const label = document.createElement("p");
    label.className = "caption";
    this.#caption.dataset.testid = "tile-name";
    this.#status.className = "status";
    this.#status.dataset.testid = "tile-status";
    label.append(this.#caption, this.#status);
    this.element.append(this.#initials, this.#video, label);
    if (!own && !screen) this.element.append(this.#audio);
    this.setName(name);
    this.#show();
  }

  setName(name: string): void {
    const known = name.trim();
    const shown = known || (this.#own ? "You" : "Guest");
    if (this.#screen) this.#caption.textContent = this.#own ? "Your screen" : `${shown}’s screen`;
    else this.#caption.textContent = this.#own && known ? `${shown} (you)` : shown;
    this.#initials.textContent = initials(shown);
    this.element.setAttribute("aria-label", this.#caption.textContent);
  }

  /** Show a track; `id` names it for `removeTrack`. Rejects with NotAllowedError where sound needs a click first. */
  async setTrack(id: string, track: MediaStreamTrack, on: boolean): Promise<void> {
    const element = track.kind === "video" ? this.#video : this.#audio;
    if (track.kind === "video") this.#videoId = id;
    else this.#audioId = id;
    element.srcObject = new MediaStream([track]);
    this.setOn(track.kind === "video" ? "video" : "audio", on);
    try {
      await element.play();
    } catch (error) {
      // AbortError: replaced by the next track before it began.
      if (error instanceof DOMException && error.name === "NotAllowedError") throw error;
    }
  }

  removeTrack(id: string): void {
    if (id === this.#videoId) {
      this.#videoId = "";
      this.#video.srcObject = null;
      this.setOn("video", false);
    } else if (id === this.#audioId) {
      this.#audioId = "";
      this.#audio.srcObject = null;
      this.level = () => undefined;
      this.setOn("audio", false);
    }
  }

  setOn(kind: types.MediaKind, on: boolean): void {
    if (kind === "video") this.#hasVideo = on;
    else this.#muted = !on;
    this.#show();
  }

  /** Try again what the browser held back until a click. */
  play(): void {
    for (const element of [this.#video, this.#audio]) if (element.srcObject) element.play().catch(() => undefined);
  }

  updateSpeaking(now: number): void {
    if (!this.#muted && (this.level() ?? 0) > SPEAKING_LEVEL) this.#spokeAt = now;
    const speaking = String(!this.#muted && now - this.#spokeAt < SPEAKING_HOLD_MS);
    if (this.element.dataset.speaking !== speaking) {
      this.element.dataset.speaking = speaking;
      this.#show();
    }
  }

  close(): void {
    this.#video.srcObject = null;
    this.#audio.srcObject = null;
    this.element.remove();
  }

  #show(): void {
    this.element.dataset.video = this.#hasVideo ? "on" : "off";
    this.element.dataset.muted = String(this.#muted);
    if (this.#screen) return;
    const speaking = this.element.dataset.speaking === "true";
    this.#status.textContent = this.#muted ? "muted" : speaking ? "speaking" : "";
  }
}

export class Tiles {
  readonly #stage: HTMLElement;
  readonly #people: HTMLElement;
  readonly #tiles = new Map<string, Tile>();
  readonly #names = new Map<string, string>();

  /** `stage` holds the shared screens, `people` the participants; both are laid out to fill their room. */
  constructor(stage: HTMLElement, people: HTMLElement) {
    this.#stage = stage;
    this.#people = people;
    const watch = new ResizeObserver((entries) => entries.forEach(({ target }) => fit(target as HTMLElement)));
    watch.observe(stage);
    watch.observe(people);
    setInterval(() => {
      const now = performance.now();
      for (const tile of this.#tiles.values()) tile.updateSpeaking(now);
    }, LEVELS_EVERY_MS);
  }

  /** The tile of that key, made where there is none. */
  open(key: string, options: TileOptions): Tile {
    let tile = this.#tiles.get(key);
    if (!tile) {
      tile = new Tile(options);
      this.#tiles.set(key, tile);
      (options.screen ? this.#stage : this.#people).append(tile.element);
      this.#arrange();
    }
    return tile;
  }

  close(key: string): void {
    const tile = this.#tiles.get(key);
    if (!tile) return;
    this.#tiles.delete(key);
    tile.close();
    this.#arrange();
  }

  clear(): void {
    for (const key of [...this.#tiles.keys()]) this.close(key);
  }

  play(): void {
    for (const tile of this.#tiles.values()) tile.play();
  }

  /** Who else is in the room: tiles come and go, and names change, to match. */
  setPeers(others: Peer[]): void {
    const present = new Set(others.map(({ userId }) => userId));
    for (const [key, { userId, element }] of [...this.#tiles]) {
      if (element.dataset.own !== "true" && !present.has(userId)) this.close(key);
    }
    this.#names.clear();
    for (const { userId, name } of others) {
      this.#names.set(userId, name);
      this.open(userId, { userId, name }).setName(name);
      this.#tiles.get(screenKey(userId))?.setName(name);
    }
  }

  addMedia(media: RemoteMedia, consumer: types.Consumer): Promise<void> {
    const { userId, producerId, kind, paused } = media;
    const screen = media.source === "screen";
    const name = this.#names.get(userId) ?? "";
    const tile = this.open(screen ? screenKey(userId) : userId, { userId, name, screen });
    if (kind === "audio") tile.level = () => consumer.rtpReceiver?.getSynchronizationSources()[0]?.audioLevel;
    return tile.setTrack(producerId, consumer.track, !paused);
  }

  pauseMedia({ userId, source, kind, paused }: RemoteMedia): void {
    this.#tiles.get(source === "screen" ? screenKey(userId) : userId)?.setOn(kind, !paused);
  }

  removeMedia({ userId, source, producerId }: RemoteMedia): void {
    if (source === "screen") this.close(screenKey(userId));
    else this.#tiles.get(userId)?.removeTrack(producerId);
  }

  #arrange(): void {
    this.#stage.hidden = this.#stage.childElementCount === 0;
    fit(this.#stage);
    fit(this.#people);
  }
}

function screenKey(userId: string): string {
  return `${userId}/screen`;
}

function initials(name: string): string {
  const letters = name.split(/\s+/).flatMap((word) => /[\p{L}\p{N}]/u.exec(word)?.[0] ?? []);
  return [letters[0], letters.length > 1 ? letters.at(-1) : ""].join("").toUpperCase();
}

/** Choose the number of columns that makes the tiles largest; below a least size the container scrolls instead. */
function fit(container: HTMLElement): void {
  const count = container.childElementCount;
  const { clientWidth: width, clientHeight: height } = container;
  if (count === 0 || width === 0) return;
  let best = { columns: 1, tile: 0 };
  for (let columns = 1; columns <= count; columns++) {
    const rows = Math.ceil(count / columns);
    const byWidth = (width - GAP * (columns - 1)) / columns;
    const byHeight = ((height - GAP * (rows - 1)) / rows) * RATIO;
    const tile = Math.min(byWidth, byHeight);
    if (tile > best.tile) best = { columns, tile };
  }
  if (best.tile < SMALLEST) {
    const columns = Math.min(count, Math.max(1, Math.floor((width + GAP) / (SMALLEST + GAP))));
    best = { columns, tile: (width - GAP * (columns - 1)) / columns };
  }
  container.style.setProperty("--columns", String(best.columns));
  container.style.setProperty("--tile", `${Math.floor(best.tile)}px`);
  const missing = (best.columns - (count % best.columns)) % best.columns;
  const lastRow = count + missing - best.columns;
  [...container.children].forEach((tile, index) => {
    (tile as HTMLElement).style.gridColumnStart = missing > 0 && index === lastRow ? String(missing + 1) : "";
  });
}
