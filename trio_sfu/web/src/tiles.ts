// The tiles: one for each participant and each shared screen, their layout, and how each is looked at.

import type { types } from "mediasoup-client";
import { Attention } from "./attention";
import type { Peer } from "./call";
import type { Look } from "./demand";
import type { RemoteMedia } from "./incoming";
import { mainTile, type Mode } from "./layout";
import { Tile, type TileOptions } from "./tile";

const RATIO = 16 / 9;
const GAP = 8; // CSS pixels, as in style.css
const SMALLEST = 130;
const LEVELS_EVERY_MS = 150;

// Which video gets bandwidth first, 1…255.
const LARGE = 200;
const SCREEN = 150;
const SPEAKER = 100;
const OTHERS = 1;

export interface TilesView {
  /** Another's video is looked at like this now. */
  lookChanged(producerId: string, look: Look): void;
  /** The person has pinned a tile, which is the speaker layout's affair. */
  modeChanged(mode: Mode): void;
}

export class Tiles {
  readonly #stage: HTMLElement;
  readonly #people: HTMLElement;
  readonly #tiles = new Map<string, Tile>();
  readonly #names = new Map<string, string>();
  readonly #view: TilesView;
  readonly #attention = new Attention((element, visible, width) => this.#looked(element, visible, width));
  #mode: Mode;
  #pinned: string | undefined;
  #speaker: string | undefined;
  #main: string | undefined;

  /**
   * `stage` holds what is to be large, `people` the rest; both are laid out to fill their room. In the grid, shared
   * screens are large; in the speaker layout, one tile alone.
   */
  constructor(stage: HTMLElement, people: HTMLElement, mode: Mode, view: TilesView) {
    this.#stage = stage;
    this.#people = people;
    this.#mode = mode;
    this.#view = view;
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
      tile = new Tile({ ...options, pin: () => this.#togglePin(key) });
      tile.element.dataset.key = key;
      const { element } = tile;
      tile.pictureResized = () => this.#attention.tell(element);
      this.#tiles.set(key, tile);
      this.#arrange();
      this.#attention.watch(tile.element);
    }
    return tile;
  }

  close(key: string): void {
    const tile = this.#tiles.get(key);
    if (!tile) return;
    this.#tiles.delete(key);
    this.#attention.unwatch(tile.element);
    tile.close();
    this.#arrange();
  }

  clear(): void {
    for (const key of [...this.#tiles.keys()]) this.close(key);
    this.#pinned = this.#speaker = this.#main = undefined;
  }

  get mode(): Mode {
    return this.#mode;
  }

  /** The grid has no pinned tile. */
  setMode(mode: Mode): void {
    this.#mode = mode;
    if (mode === "grid") this.#pinned = undefined;
    this.#arrange();
  }

  /** Who speaks; undefined: nobody whose tile could be the large one. */
  setSpeaker(userId: string | undefined): void {
    this.#speaker = userId;
    this.#arrange();
  }

  /** What is written on the tile of that media. */
  titleOf(media: RemoteMedia): string {
    return this.#of(media)?.title ?? "";
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
    const shown = tile.setTrack(producerId, consumer.track, !paused);
    this.#attention.tell(tile.element);
    return shown;
  }

  pauseMedia(media: RemoteMedia): void {
    this.#of(media)?.setOn(media.kind, !media.paused);
  }

  holdMedia(media: RemoteMedia, held: boolean): void {
    if (media.kind === "video") this.#of(media)?.setHeld(held);
  }

  removeMedia({ userId, source, producerId }: RemoteMedia): void {
    if (source === "screen") this.close(screenKey(userId));
    else this.#tiles.get(userId)?.removeTrack(producerId);
  }

  /** The long side, in device pixels, that a picture will have; undefined where it has no tile yet. */
  widthOf(media: RemoteMedia): number | undefined {
    const tile = this.#of(media);
    return tile && longSide(tile, Attention.widthOf(tile.element));
  }

  #of({ userId, source }: RemoteMedia): Tile | undefined {
    return this.#tiles.get(source === "screen" ? screenKey(userId) : userId);
  }

  #togglePin(key: string): void {
    this.#pinned = this.#pinned === key ? undefined : key;
    if (this.#pinned !== undefined && this.#mode === "grid") {
      this.#mode = "speaker";
      this.#view.modeChanged("speaker");
    }
    this.#arrange();
  }

  #arrange(): void {
    const tiles = [...this.#tiles].map(([key, { element }]) => ({
      key,
      own: element.dataset.own === "true",
      screen: element.dataset.source === "screen",
    }));
    if (this.#pinned !== undefined && !this.#tiles.has(this.#pinned)) this.#pinned = undefined;
    const focus = { pinned: this.#pinned, speaker: this.#speaker, before: this.#main };
    this.#main = this.#mode === "speaker" ? mainTile(tiles, focus) : undefined;
    const large = tiles.filter(({ key, screen }) => (this.#mode === "speaker" ? key === this.#main : screen));
    const rest = tiles.filter((tile) => !large.includes(tile));
    this.#put(this.#stage, large.map(({ key }) => key));
    this.#put(this.#people, rest.map(({ key }) => key));
    for (const container of [this.#stage, this.#people]) {
      container.hidden = container.childElementCount === 0;
    }
    for (const container of [this.#stage, this.#people]) fit(container); // each gets the room that both leave
    for (const [key, tile] of this.#tiles) {
      tile.setPinned(key === this.#pinned);
      this.#attention.tell(tile.element); // its priority may have changed
    }
  }

  /** These tiles, in this order; those that are there already are not touched. */
  #put(container: HTMLElement, keys: string[]): void {
    let next = container.firstElementChild;
    for (const key of keys) {
      const tile = this.#tiles.get(key);
      if (!tile) continue;
      if (tile.element === next) {
        next = next.nextElementSibling;
      } else {
        const focused = tile.element.contains(document.activeElement) ? document.activeElement : null;
        container.insertBefore(tile.element, next);
        // What is moved may stop, and loses the focus.
        tile.play();
        if (focused instanceof HTMLElement) focused.focus({ preventScroll: true });
      }
    }
  }

  #looked(element: Element, visible: boolean, tileWidth: number): void {
    const key = (element as HTMLElement).dataset.key ?? "";
    const tile = this.#tiles.get(key);
    if (!tile?.videoId || tile.element.dataset.own === "true") return;
    const { source } = tile.element.dataset;
    const width = longSide(tile, tileWidth);
    const priority =
      key === this.#main ? LARGE : source === "screen" ? SCREEN : key === this.#speaker ? SPEAKER : OTHERS;
    this.#view.lookChanged(tile.videoId, { visible, width, priority });
  }
}

function screenKey(userId: string): string {
  return `${userId}/screen`;
}

/** Layers are known by their long sides, and the tile is as wide as an upright picture's short one. */
function longSide(tile: Tile, tileWidth: number): number {
  return Math.round(tileWidth * (tile.upright && tile.element.dataset.source === "camera" ? RATIO : 1));
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
