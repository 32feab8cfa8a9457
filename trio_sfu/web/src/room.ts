// The page of a room: asks for the devices, joins the call, and keeps buttons, tiles and words up to date.

import { Call, type CallState, type Peer } from "./call";
import { canShareScreen, openBoth, openCamera, openMicrophone, openScreen } from "./devices";
import { type Mode, rememberedMode, rememberMode } from "./layout";
import { Overlay } from "./overlay";
import { byId, copyLink, rememberedName, rememberName, ROOM_ID, ROOM_ID_RULE, roomIdOfPage } from "./page";
import type { HlsState } from "./protocol";
import { Tile } from "./tile";
import { Tiles } from "./tiles";

const OWN = "own";
const OWN_SCREEN = "own/screen";
const OWN_LEVEL_EVERY_MS = 300;
const STREAM_WORDS = { starting: "Starting…", live: "Live", restarting: "Restarting…", failed: "Failed" };

const roomId = roomIdOfPage();
const tiles = new Tiles(byId("stage", HTMLElement), byId("people", HTMLElement), rememberedMode(), {
  lookChanged: (producerId, look) => call?.look(producerId, look),
  modeChanged: useLayout,
});
const preview = new Tile({ userId: "", name: "", own: true });
const stateLine = byId("state", HTMLElement);
const notice = byId("notice", HTMLElement);
const message = byId("message", HTMLElement);
const nameField = byId("name", HTMLInputElement);
const joinButton = byId("join", HTMLButtonElement);
const muteButton = byId("mute", HTMLButtonElement);
const cameraButton = byId("camera", HTMLButtonElement);
const shareButton = byId("share", HTMLButtonElement);
const leaveButton = byId("leave", HTMLButtonElement);
const copyButton = byId("copy-link", HTMLButtonElement);
const layoutButton = byId("layout", HTMLButtonElement);
const figuresButton = byId("figures-toggle", HTMLButtonElement);
const overlay = new Overlay(byId("figures", HTMLElement), (media) => tiles.titleOf(media));
const watchLink = byId("watch", HTMLAnchorElement);
const streamWord = byId("stream", HTMLElement);

let call: Call | undefined;
let microphone: MediaStreamTrack | undefined;
let camera: MediaStreamTrack | undefined;
let screen: MediaStreamTrack | undefined;
let microphoneOn = false;
let ownLevel = 0;
let others: Peer[] = [];

// Words

function say(text: string): void {
  message.textContent = text;
  notice.hidden = text === "";
}

function showState(state: CallState | "ready"): void {
  stateLine.dataset.state = state;
  stateLine.textContent = words(state);
}

function words(state: CallState | "ready"): string {
  switch (state) {
    case "ready":
      return "Not in the call yet";
    case "joining":
      return "Joining…";
    case "waiting":
      return "The server cannot be reached; trying again…";
    case "connecting":
      return "Connecting sound and picture…";
    case "connected":
      if (others.length === 0) return "In the call; nobody else is here yet";
      return `In the call with ${others.length === 1 ? "one other" : `${others.length} others`}`;
    case "interrupted":
      return "Sound and picture are interrupted; trying again…";
    case "resuming":
      return "The line to the server is lost; sound and picture may go on. Reconnecting…";
    case "reconnecting":
      return "Connection lost; reconnecting…";
    case "left":
      return "You left the call";
  }
}

/** What has become of the room's stream, beside the link to it; undefined: nothing is known. */
function showStream(state?: HlsState, reason = ""): void {
  const shown = state && state !== "ended" ? state : "";
  streamWord.dataset.state = shown;
  streamWord.textContent = shown && STREAM_WORDS[shown];
  watchLink.title = shown === "failed" ? reason : "";
}

function showPhase(phase: "ready" | "call" | "left"): void {
  document.body.dataset.phase = phase;
  for (const section of ["ready", "call", "left"]) byId(section, HTMLElement).hidden = section !== phase;
  if (phase === "ready") {
    byId("preview", HTMLElement).append(preview.element);
  } else {
    preview.element.remove();
    preview.removeTrack("camera");
  }
  byId("controls", HTMLElement).hidden = phase === "left";
  byId("view", HTMLElement).hidden = phase !== "call";
  if (phase !== "call") showFigures(false);
  shareButton.hidden = phase !== "call" || !canShareScreen();
  leaveButton.hidden = phase !== "call";
}

// The view

function useLayout(mode: Mode): void {
  rememberMode(mode);
  layoutButton.setAttribute("aria-pressed", String(mode === "speaker"));
}

function showFigures(shown: boolean): void {
  if (shown && call) overlay.open(call);
  else overlay.close();
  figuresButton.setAttribute("aria-pressed", String(shown));
}

function keyPressed(event: KeyboardEvent): void {
  if (event.key !== "i" || event.ctrlKey || event.metaKey || event.altKey || event.target instanceof HTMLInputElement) return;
  if (document.body.dataset.phase === "call") showFigures(!overlay.isOpen);
}

// Own devices

function ownTile(): Tile {
  return call ? tiles.open(OWN, { userId: OWN, name: nameField.value, own: true }) : preview;
}

function showDevices(): void {
  for (const [button, on] of [
    [muteButton, microphoneOn],
    [cameraButton, camera !== undefined],
    [shareButton, screen !== undefined],
  ] as const) {
    button.setAttribute("aria-pressed", String(on));
    const word = button.querySelector("small");
    if (word) word.textContent = on ? "on" : "off";
  }
  const tile = ownTile();
  tile.setOn("audio", microphoneOn);
  if (camera) void tile.setTrack("camera", camera, true);
  else tile.removeTrack("camera");
  if (call && screen) {
    void tiles.open(OWN_SCREEN, { userId: OWN, name: "", own: true, screen: true }).setTrack("screen", screen, true);
  } else tiles.close(OWN_SCREEN);
}

function useMicrophone(track: MediaStreamTrack): void {
  microphone = track;
  microphoneOn = true;
  track.addEventListener("ended", () => {
    if (microphone !== track) return;
    say("The microphone is gone: it was unplugged, or its permission was taken back.");
    microphone = undefined;
    microphoneOn = false;
    void call?.outgoing.stop("microphone");
    showDevices();
  });
}

function useCamera(track: MediaStreamTrack): void {
  camera = track;
  track.addEventListener("ended", () => {
    if (camera !== track) return;
    say("The camera is gone: it was unplugged, or its permission was taken back.");
    camera = undefined;
    void call?.outgoing.pause("camera", true);
    showDevices();
  });
}

async function toggleMicrophone(): Promise<void> {
  if (!microphone) {
    useMicrophone(await openMicrophone());
  } else {
    microphoneOn = !microphoneOn;
  }
  if (!microphone) return;
  microphone.enabled = microphoneOn;
  showDevices();
  if (microphoneOn) await call?.outgoing.send("microphone", microphone);
  else await call?.outgoing.pause("microphone", false);
}

async function toggleCamera(): Promise<void> {
  if (camera) {
    const track = camera;
    camera = undefined;
    showDevices();
    await call?.outgoing.pause("camera", true);
    track.stop(); // and the light goes out
  } else {
    const track = await openCamera();
    useCamera(track);
    showDevices();
    await call?.outgoing.send("camera", track);
  }
}

async function toggleScreen(): Promise<void> {
  if (screen) return stopScreen();
  const track = await openScreen();
  if (!track) return;
  if (!call) return track.stop();
  screen = track;
  // The browser's own "stop sharing" ends the track.
  track.addEventListener("ended", () => {
    if (screen === track) void stopScreen();
  });
  showDevices();
  await call.outgoing.send("screen", track);
}

async function stopScreen(): Promise<void> {
  const track = screen;
  screen = undefined;
  track?.stop();
  showDevices();
  await call?.outgoing.stop("screen");
}

/** One click at a time for each button, and what goes wrong is said. */
function onClick(button: HTMLButtonElement, action: () => Promise<void>): void {
  let busy = false;
  button.addEventListener("click", () => {
    if (busy) return;
    busy = true;
    button.setAttribute("aria-busy", "true");
    action()
      .catch((error: unknown) => say(error instanceof Error ? error.message : String(error)))
      .finally(() => {
        busy = false;
        button.removeAttribute("aria-busy");
      });
  });
}

// The call

async function join(): Promise<void> {
  rememberName(nameField.value);
  say("");
  others = [];
  const joining = new Call(roomId, nameField.value.trim().slice(0, 64), {
    stateChanged: (state) => {
      if (call === joining) showState(state);
    },
    peersChanged: (present) => {
      others = present;
      tiles.setPeers(present);
      if (stateLine.dataset.state === "connected") showState("connected");
    },
    widthOf: (media) => tiles.widthOf(media),
    mediaAdded: (media, consumer) => {
      tiles.addMedia(media, consumer).catch(() => {
        say("The browser holds the sound back until you click or tap anywhere on this page.");
        document.addEventListener("click", () => (tiles.play(), say("")), { once: true });
      });
    },
    mediaRemoved: (media) => tiles.removeMedia(media),
    mediaPaused: (media) => tiles.pauseMedia(media),
    mediaHeld: (media, held) => tiles.holdMedia(media, held),
    speakerChanged: (userId) => tiles.setSpeaker(userId),
    streamChanged: showStream,
    notice: say,
  });
  call = joining;
  joinButton.disabled = true;
  showPhase("call");
  tiles.open(OWN, { userId: OWN, name: nameField.value, own: true }).level = () => ownLevel;
  showDevices();
  if (camera) void joining.outgoing.send("camera", camera);
  if (microphone) void joining.outgoing.send("microphone", microphone, !microphoneOn);
  try {
    await joining.join();
  } catch (error) {
    if (call !== joining) return;
    call = undefined;
    tiles.clear();
    showPhase("ready");
    showState("ready");
    showDevices();
    say(`The room could not be joined. ${error instanceof Error ? error.message : String(error)}`);
  } finally {
    joinButton.disabled = false;
  }
}

async function leave(): Promise<void> {
  const leaving = call;
  if (!leaving) return;
  await leaving.leave();
  call = undefined;
  for (const track of [camera, microphone, screen]) track?.stop();
  camera = microphone = screen = undefined;
  microphoneOn = false;
  tiles.clear();
  showDevices();
  say("");
  showPhase("left");
  showState("left");
  byId("rejoin", HTMLButtonElement).focus();
}

async function measureOwnLevel(): Promise<void> {
  const stats = await call?.producer("microphone")?.getStats();
  let level = 0;
  stats?.forEach((entry: { type: string; audioLevel?: number }) => {
    if (entry.type === "media-source") level = entry.audioLevel ?? 0;
  });
  ownLevel = level;
}

async function prepare(): Promise<void> {
  showPhase("ready");
  showState("ready");
  const found = await openBoth();
  // The answer may come late: after joining, after a click on one of the buttons, or after leaving.
  if (document.body.dataset.phase === "left") {
    found.camera?.stop();
    found.microphone?.stop();
    return;
  }
  if (found.camera && camera) found.camera.stop();
  else if (found.camera) {
    useCamera(found.camera);
    void call?.outgoing.send("camera", found.camera);
  }
  if (found.microphone && microphone) found.microphone.stop();
  else if (found.microphone) {
    useMicrophone(found.microphone);
    void call?.outgoing.send("microphone", found.microphone);
  }
  if (found.problem) say(found.problem);
  showDevices();
}

/** A link that was mistyped or cut: nobody can meet there. */
function refuse(): void {
  showPhase("left");
  stateLine.textContent = "There is no such room";
  byId("left-title", HTMLElement).textContent = "There is no such room";
  byId("rejoin", HTMLButtonElement).hidden = true;
  copyButton.hidden = true;
  watchLink.hidden = true;
  say(`This link leads to no room. ${ROOM_ID_RULE}`);
}

byId("room-name", HTMLElement).textContent = roomId;
document.title = `${roomId} · trio_sfu`;
watchLink.href = `/watch/${encodeURIComponent(roomId)}`;
preview.element.dataset.testid = "preview";
nameField.value = rememberedName();
nameField.addEventListener("input", () => preview.setName(nameField.value));
preview.setName(nameField.value);
byId("join-form", HTMLFormElement).addEventListener("submit", (event) => {
  event.preventDefault();
  if (!call) void join();
});
byId("dismiss", HTMLButtonElement).addEventListener("click", () => say(""));
byId("rejoin", HTMLButtonElement).addEventListener("click", () => void prepare());
onClick(muteButton, toggleMicrophone);
onClick(cameraButton, toggleCamera);
onClick(shareButton, toggleScreen);
onClick(leaveButton, leave);
layoutButton.addEventListener("click", () => {
  tiles.setMode(tiles.mode === "grid" ? "speaker" : "grid");
  useLayout(tiles.mode);
});
figuresButton.addEventListener("click", () => showFigures(!overlay.isOpen));
addEventListener("keydown", keyPressed);
useLayout(tiles.mode);
onClick(copyButton, () => copyLink(copyButton, say));
setInterval(() => void measureOwnLevel().catch(() => undefined), OWN_LEVEL_EVERY_MS);
// A closed page leaves at once, whatever carries its signalling; one brought back from the cache starts anew.
addEventListener("pagehide", () => void call?.leave());
addEventListener("pageshow", (event) => event.persisted && location.reload());
if (ROOM_ID.test(roomId)) void prepare();
else refuse();
