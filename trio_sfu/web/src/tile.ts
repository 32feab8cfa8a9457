// One tile: a participant with picture and sound, or a shared screen; what is written on it, and whether it speaks.

import type { types } from "mediasoup-client";

const SPEAKING_LEVEL = 0.03; // of 0…1; about -30 dBov
const SPEAKING_HOLD_MS = 600;
const HELD = "Picture paused: too little bandwidth";

export interface TileOptions {
  userId: string;
  name: string;
  screen?: boolean;
  /** One's own: said in the caption, never heard, and a camera is shown as in a mirror. */
  own?: boolean;
  /** Called when the person clicks on the tile; where it is missing, there is nothing to click on. */
  pin?: () => void;
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
  readonly #held = document.createElement("p");
  readonly #pin = document.createElement("button");
  readonly #pinWord = document.createElement("span");
  #videoId = "";
  #audioId = "";
  #hasVideo = false;
  #muted = true;
  #spokeAt = -Infinity;
  /** Called when the picture has another size. */
  pictureResized: () => void = () => undefined;
  /** Audio level now, 0…1; undefined where none is known. */
  level: () => number | undefined = () => undefined;

  constructor({ userId, name, screen = false, own = false, pin }: TileOptions) {
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
    this.#video.addEventListener("resize", () => this.pictureResized());
    this.#audio.autoplay = true;
    this.#initials.className = "initials";
    this.#initials.setAttribute("aria-hidden", "true");
    const label = document.createElement("p");
    label.className = "caption";
    this.#caption.dataset.testid = "tile-name";
    this.#status.className = "status";
    this.#status.dataset.testid = "tile-status";
    label.append(this.#caption, this.#status);
    this.#held.className = "held";
    this.#held.dataset.testid = "tile-held";
    this.#held.setAttribute("role", "status");
    this.element.append(this.#initials, this.#video, this.#held, label);
    if (pin) {
      // All of the tile: easy to hit, and nothing lies on the picture.
      this.#pin.type = "button";
      this.#pin.className = "pin";
      this.#pin.dataset.testid = "pin";
      this.#pinWord.setAttribute("aria-hidden", "true");
      this.#pin.append(this.#pinWord);
      this.#pin.addEventListener("click", pin);
      this.element.append(this.#pin);
      this.setPinned(false);
    }
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
    this.#pin.setAttribute("aria-label", `Pin ${this.#caption.textContent}`);
  }

  /** As it is written on the tile. */
  get title(): string {
    return this.#caption.textContent ?? "";
  }

  /** The id of the video track that is shown; empty where there is none. */
  get videoId(): string {
    return this.#videoId;
  }

  /** Whether the picture is higher than wide, as phones' are. */
  get upright(): boolean {
    return this.#video.videoHeight > this.#video.videoWidth;
  }

  setPinned(pinned: boolean): void {
    this.#pin.setAttribute("aria-pressed", String(pinned));
    this.#pinWord.textContent = pinned ? "Pinned" : "Pin";
  }

  /** Say that the picture stands still because the network does not carry it. */
  setHeld(held: boolean): void {
    this.element.dataset.held = String(held);
    this.#held.textContent = held ? HELD : "";
  }

  /** Show a track; `id` names it for `removeTrack`. Rejects with NotAllowedError where sound needs a click first. */
  async setTrack(id: string, track: MediaStreamTrack, on: boolean): Promise<void> {
    const element = track.kind === "video" ? this.#video : this.#audio;
    if (track.kind === "video") this.#videoId = id;
    else this.#audioId = id;
    const shown = element.srcObject instanceof MediaStream ? element.srcObject.getTracks()[0] : undefined;
    if (shown !== track) element.srcObject = new MediaStream([track]); // or the picture would go dark for a moment
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
      this.setHeld(false);
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

function initials(name: string): string {
  const letters = name.split(/\s+/).flatMap((word) => /[\p{L}\p{N}]/u.exec(word)?.[0] ?? []);
  return [letters[0], letters.length > 1 ? letters.at(-1) : ""].join("").toUpperCase();
}
