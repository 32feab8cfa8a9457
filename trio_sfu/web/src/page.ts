// What both pages share: finding their own elements, and the name a person goes by.

const NAME_KEY = "trio-sfu.name";

/** The element of that id; a page without it is a bug of ours, said at once. */
export function byId<T extends HTMLElement>(id: string, type: abstract new (...args: never[]) => T): T {
  const element = document.getElementById(id);
  if (!(element instanceof type)) throw new Error(`no #${id} on this page`);
  return element;
}

/** What the server takes for a room's name. */
export const ROOM_ID = /^[A-Za-z0-9_-]{1,64}$/;
export const ROOM_ID_RULE = "A room's name has only letters without accents, digits, - and _, and at most 64 of them.";

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
