// Which tile is the large one, and how the person likes the tiles arranged: a grid, or one large and a strip. Pure but
// for remembering the liking.

const MODE_KEY = "trio-sfu.layout";

export type Mode = "grid" | "speaker";

/** Its key, and what of a tile the choice goes by. */
export interface Candidate {
  key: string;
  own: boolean;
  screen: boolean;
}

export interface Focus {
  /** Keys; they may be of tiles that are gone. */
  pinned?: string;
  speaker?: string;
  /** The large one so far: it stays while nobody else speaks. */
  before?: string;
}

/** The key of the large tile; undefined where there are no tiles. `candidates`: in the order they came. */
export function mainTile(candidates: readonly Candidate[], { pinned, speaker, before }: Focus): string | undefined {
  const others = candidates.filter(({ own }) => !own);
  const present = (key: string | undefined, among = candidates): Candidate | undefined =>
    among.find((each) => each.key === key);
  const chosen =
    present(pinned) ?? // one's own, too
    others.findLast(({ screen }) => screen) ??
    present(speaker, others) ??
    present(before, others) ??
    others[0] ??
    candidates.findLast(({ screen }) => screen) ??
    candidates[0];
  return chosen?.key;
}

export function rememberedMode(): Mode {
  try {
    return localStorage.getItem(MODE_KEY) === "speaker" ? "speaker" : "grid";
  } catch {
    return "grid"; // storage may be forbidden
  }
}

export function rememberMode(mode: Mode): void {
  try {
    localStorage.setItem(MODE_KEY, mode);
  } catch {
    // as above
  }
}
