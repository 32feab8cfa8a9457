// The start page: makes up a room or takes the name of one, and goes there. It needs no connection to the server:
// a room begins when the first participant enters it, on the room's own page.

import { byId, rememberedName, rememberName, ROOM_ID, ROOM_ID_RULE } from "./page";

const form = byId("form", HTMLFormElement);
const name = byId("name", HTMLInputElement);
const room = byId("room-id", HTMLInputElement);
const message = byId("message", HTMLElement);

/** Ten characters, about 51 bits: nobody comes upon a room by trying names. */
function newRoomId(): string {
  const alphabet = "abcdefghijkmnpqrstuvwxyz23456789"; // 32 of them: the remainder of a byte favours none
  const bytes = crypto.getRandomValues(new Uint8Array(10));
  return "room_" + Array.from(bytes, (byte) => alphabet[byte % 32]).join("");
}

/** The room's name out of what was typed or pasted: a name as it is, or a link to a room's page. */
function roomIdFrom(text: string): string {
  const link = /\/room\/([^/?#\s]+)/.exec(text);
  if (!link?.[1]) return text.trim();
  try {
    return decodeURIComponent(link[1]);
  } catch {
    return link[1];
  }
}

function enter(roomId: string): void {
  rememberName(name.value);
  location.assign(`/room/${encodeURIComponent(roomId)}`);
}

name.value = rememberedName();
byId("create", HTMLButtonElement).addEventListener("click", () => enter(newRoomId()));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const roomId = roomIdFrom(room.value);
  if (ROOM_ID.test(roomId)) return enter(roomId);
  message.hidden = false;
  message.textContent = roomId === "" ? "Type the room's name, or paste a link to it." : ROOM_ID_RULE;
  room.focus();
});
