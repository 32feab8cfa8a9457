// What the pages share: finding their own elements, the room they are for, and the name a person goes by.

const NAME_KEY = "trio-sfu.name";
const COPIED_FOR_MS = 2_000;

/** The element of that id; a page without it is a bug of ours, said at once. */
export function byId<T extends HTMLElement>(id: string, type: abstract new (...args: never[]) => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`no #${id} on this page`);
  return element;
}

/** What the server takes for a room's name. */
export const ROOM_ID = /^[A-Za-z0-9_-]{1,64}$/;
export const ROOM_ID_RULE = "A room's name has only letters without accents, digits, - and _, and at most 64 of them.";

/** The room's name out of the page's own address, `/room/<name>` or `/watch/<name>`; it may be one that cannot be. */
export function roomIdOfPage(): string {
  const part = location.pathname.split("/")[2] ?? "";
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Copy the page's own link and say so on the button, or hand the link to `say` where copying is not allowed. */
export async function copyLink(button: HTMLButtonElement, say: (text: string) => void): Promise<void> {
  const link = location.origin + location.pathname;
  try {
    await navigator.clipboard.writeText(link);
  } catch {
    // Not allowed, or a page without HTTPS: leave the copying to the person.
    say(`Copy this link: ${link}`);
    return;
  }
  button.textContent = "Copied";
  setTimeout(() => (button.textContent = "Copy link"), COPIED_FOR_MS);
}

export function rememberedName(): string {
  try {
    return localStorage.getItem(NAME_KEY) ?? "";
  } catch {
    return ""; // storage may be forbidden; the name is then asked for each time
  }
}

export function rememberName(name: string): void {
  try {
    localStorage.setItem(NAME_KEY, name.trim());
  } catch {
    // as above
  }
}
