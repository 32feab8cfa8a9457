// The page that plays a room's live stream: waits for it, plays it, and waits again when it is over. It never needs
// to be loaded anew, whatever the room and the server do.

import { type Silence, untilLive } from "./airing";
import { byId, copyLink, ROOM_ID, ROOM_ID_RULE, roomIdOfPage } from "./page";
import { CLOSE_S, Player, type PlayerState } from "./player";

const LOOK_EVERY_MS = 250;
const STALL_SHOWN_AFTER_MS = 500;
const CONTROLS_STAY_MS = 3_000;

const roomId = roomIdOfPage();
const url = `/hls/${encodeURIComponent(roomId)}/index.m3u8`;
const stateLine = byId("state", HTMLElement);
const latencyLine = byId("latency", HTMLElement);
const notice = byId("notice", HTMLElement);
const message = byId("message", HTMLElement);
const frame = byId("player", HTMLElement);
const stage = byId("stage", HTMLElement);
const video = byId("video", HTMLVideoElement);
const spinner = byId("spinner", HTMLElement);
const cover = byId("cover", HTMLElement);
const controls = byId("controls", HTMLElement);
const position = byId("position", HTMLInputElement);
const volume = byId("volume", HTMLInputElement);
const playButton = byId("play", HTMLButtonElement);
const soundButton = byId("sound", HTMLButtonElement);
const soundOnButton = byId("sound-on", HTMLButtonElement);
const goLiveButton = byId("go-live", HTMLButtonElement);
const popOutButton = byId("pop-out", HTMLButtonElement);
const fullScreenButton = byId("full-screen", HTMLButtonElement);
const copyButton = byId("copy-link", HTMLButtonElement);

type State = "connecting" | Silence | "loading" | "live" | "behind" | "stalled" | "paused" | "impossible";

const player = new Player(video, byId("still", HTMLCanvasElement), url, {
  stateChanged: playerChanged,
  soundHeldBack: () => (soundOnButton.hidden = false),
});
let playing: PlayerState = "loading";
let stallTimer: ReturnType<typeof setTimeout> | undefined;
let stalled = false;

// Words

function say(text: string): void {
  message.textContent = text;
  notice.hidden = text === "";
}

function words(state: State): string {
  switch (state) {
    case "connecting":
      return "Looking for the stream…";
    case "absent":
      return "Waiting for the room to go live…";
    case "off":
      return "This server makes no live streams";
    case "ended":
      return "The stream has ended";
    case "halted":
    case "stalled":
      return "Waiting for the stream to go on…";
    case "failed":
      return "The stream cannot be made";
    case "unreachable":
      return "The server cannot be reached; trying again…";
    case "begun":
    case "loading":
      return "Starting…";
    case "live":
      return "Live";
    case "behind":
      return "Behind live";
    case "paused":
      return "Paused";
    case "impossible":
      return "The stream cannot be shown";
  }
}

/** What the cover over the picture says beside the state; undefined: there is none, the picture is to be seen. */
function coverText(state: State, reason: string): string | undefined {
  switch (state) {
    case "absent":
      return "It does when somebody in it has camera and microphone on. This page then plays by itself.";
    case "off":
      return "Whoever runs it has switched them off.";
    case "ended":
      return "Should the room go live again, this page plays it by itself.";
    case "failed":
      return reason || "The server does not say why. This page goes on trying.";
    case "unreachable":
      return "This page plays the stream as soon as the server is there.";
    case "impossible":
      return reason;
    default:
      return undefined;
  }
}

function show(state: State, reason = ""): void {
  if (stateLine.dataset.state !== state) {
    stateLine.dataset.state = state;
    stateLine.textContent = words(state); // told by screen readers: only when it changes
  }
  const text = coverText(state, reason);
  cover.hidden = text === undefined;
  byId("cover-title", HTMLElement).textContent = words(state);
  byId("cover-text", HTMLElement).textContent = text ?? "";
  spinner.hidden = !["connecting", "begun", "loading", "stalled", "halted"].includes(state);
}

// What the player does

function playerChanged(state: PlayerState): void {
  playing = state;
  clearTimeout(stallTimer);
  stalled = false;
  if (state === "stalled") {
    // One of a blink is not worth a word.
    stallTimer = setTimeout(() => {
      stalled = true;
      look();
    }, STALL_SHOWN_AFTER_MS);
  }
  look();
}

function stateNow(): State {
  if (playing === "loading" || playing === "paused") return playing;
  if (stalled) return "stalled";
  return player.behind > CLOSE_S ? "behind" : "live";
}

/** Bring all that is to be seen up to date with the player. */
function look(): void {
  const { active, latency, window: range } = player;
  controls.hidden = !active;
  if (active) {
    player.keepUp();
    show(stateNow());
  }
  latencyLine.hidden = latency === undefined || !["live", "behind", "paused"].includes(stateNow());
  if (latency !== undefined) {
    const seconds = `${latency.toFixed(1)} s`;
    latencyLine.textContent = stateNow() === "behind" ? `by ${seconds}` : `${seconds} behind`;
  }
  offerLive(active && (playing === "paused" || player.behind > CLOSE_S) && video.readyState > 0);
  position.disabled = range === undefined;
  if (range && !position.matches(":active")) {
    const behind = player.behind > CLOSE_S ? Math.round(player.behind) : 0;
    position.min = String(Math.min(-1, Math.round(range.start - range.end)));
    position.value = String(-behind);
    position.setAttribute("aria-valuetext", behind === 0 ? "Live" : `${behind} seconds behind live`);
  }
  setLabel(playButton, video.paused ? "Play" : "Pause");
  playButton.dataset.paused = String(video.paused);
}

function offerLive(offered: boolean): void {
  if (goLiveButton.hidden === !offered) return;
  if (!offered && document.activeElement === goLiveButton) playButton.focus();
  goLiveButton.hidden = !offered;
}

function showSound(): void {
  const on = !video.muted && video.volume > 0;
  setPressed(soundButton, on);
  volume.value = String(video.muted ? 0 : video.volume);
  volume.setAttribute("aria-valuetext", `${Math.round(Number(volume.value) * 100)} percent`);
  if (!video.muted) soundOnButton.hidden = true;
}

function setPressed(button: HTMLButtonElement, on: boolean): void {
  button.setAttribute("aria-pressed", String(on));
  const word = button.querySelector("small");
  if (word) word.textContent = on ? "on" : "off";
}

function setLabel(button: HTMLButtonElement, text: string): void {
  const label = button.querySelector("span");
  if (label && label.textContent !== text) label.textContent = text;
}

// What the person does

function toggleSound(): void {
  video.muted = !video.muted && video.volume > 0;
  if (!video.muted && video.volume === 0) video.volume = 0.5;
}

async function togglePopOut(): Promise<void> {
  if (document.pictureInPictureElement) await document.exitPictureInPicture();
  else await video.requestPictureInPicture();
}

/** On an iPhone only the video itself can fill the screen, and has the system's controls then. */
type WithOwnFullScreen = HTMLVideoElement & { webkitEnterFullscreen?: () => void };

async function toggleFullScreen(): Promise<void> {
  if (document.fullscreenElement) await document.exitFullscreen();
  else if (document.fullscreenEnabled) await frame.requestFullscreen();
  else (video as WithOwnFullScreen).webkitEnterFullscreen?.();
}

let idleTimer: ReturnType<typeof setTimeout> | undefined;

/** In full screen the controls go when nothing is done for a while, and come back with the first thing done. */
function stir(): void {
  delete frame.dataset.idle;
  clearTimeout(idleTimer);
  idleTimer = setTimeout(() => (frame.dataset.idle = "true"), CONTROLS_STAY_MS);
}

function onClick(element: HTMLElement, action: () => void | Promise<void>): void {
  element.addEventListener("click", () => {
    Promise.resolve(action()).catch((error: unknown) => say(error instanceof Error ? error.message : String(error)));
  });
}

function onKey(event: KeyboardEvent): void {
  if (controls.hidden || event.ctrlKey || event.altKey || event.metaKey) return;
  // To a button the space bar is a click on it.
  if (event.key === " " && event.target instanceof Element && event.target.closest("button, a")) return;
  const action = { " ": () => player.toggle(), m: toggleSound, f: () => void toggleFullScreen() }[event.key];
  if (!action) return;
  event.preventDefault();
  action();
}

function wire(): void {
  onClick(playButton, () => player.toggle());
  onClick(soundButton, toggleSound);
  onClick(soundOnButton, () => {
    soundOnButton.hidden = true;
    soundButton.focus();
    video.muted = false;
    if (video.paused) player.toggle();
  });
  onClick(goLiveButton, () => player.goLive());
  onClick(popOutButton, togglePopOut);
  onClick(fullScreenButton, toggleFullScreen);
  onClick(copyButton, () => copyLink(copyButton, say));
  onClick(byId("dismiss", HTMLButtonElement), () => say(""));
  position.addEventListener("input", () => {
    const end = player.window?.end;
    if (end !== undefined) player.seek(end + Number(position.value));
  });
  volume.addEventListener("input", () => {
    video.volume = Number(volume.value);
    video.muted = video.volume === 0;
  });
  video.addEventListener("volumechange", showSound);
  stage.addEventListener("click", (event) => {
    if (controls.hidden || (event as PointerEvent).pointerType === "touch") return;
    if (!(event.target as Element).closest("button, a")) player.toggle();
  });
  stage.addEventListener("dblclick", () => controls.hidden || void toggleFullScreen());
  popOutButton.hidden = !document.pictureInPictureEnabled;
  for (const name of ["enterpictureinpicture", "leavepictureinpicture"]) {
    video.addEventListener(name, () => setPressed(popOutButton, document.pictureInPictureElement === video));
  }
  fullScreenButton.hidden = !document.fullscreenEnabled && !("webkitEnterFullscreen" in video);
  document.addEventListener("fullscreenchange", () => setPressed(fullScreenButton, document.fullscreenElement !== null));
  document.addEventListener("keydown", onKey);
  for (const name of ["pointermove", "pointerdown", "keydown"]) document.addEventListener(name, stir);
  document.addEventListener("visibilitychange", look);
  setInterval(look, LOOK_EVERY_MS);
}

// The page's life

async function watch(): Promise<never> {
  let outcome: "none" | "ended" | "lost" = "none";
  for (;;) {
    await untilLive(url, { moving: outcome === "lost" }, (silence, reason) => {
      // An ended stream is kept for a while and then forgotten, which is no news to whoever saw it end.
      const forgotten = silence === "absent" && stateLine.dataset.state === "ended";
      show(forgotten ? "ended" : silence, reason);
    });
    outcome = await player.play();
    look();
    show(outcome === "ended" ? "ended" : "halted");
  }
}

/** There is nothing to wait for. */
function refuse(reason: string): void {
  copyButton.hidden = true;
  byId("home", HTMLElement).hidden = false;
  show("impossible", reason);
}

byId("room-name", HTMLElement).textContent = roomId;
document.title = `${roomId} live · trio_sfu`;
if (!ROOM_ID.test(roomId)) {
  refuse(`This link leads to no room. ${ROOM_ID_RULE}`);
} else if (!Player.supported()) {
  refuse("This browser cannot play live streams (HLS). A recent Chrome, Edge, Firefox or Safari can.");
} else {
  wire();
  showSound();
  void watch();
}
