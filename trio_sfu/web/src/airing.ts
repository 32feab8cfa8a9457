// Whether a room's stream is on the air: its playlist is asked for until it is. Nothing is played in here.

const DELAY_MS = 1_000;
const SOON_MS = 250;
const ANSWER_TIMEOUT_MS = 10_000;
const LONGEST_REASON = 300;

/**
 * Why there is nothing to play. `begun`: there will be within a second or so. `halted`: the stream is there, but
 * nothing new has come since it was lost. `off`: the server makes no live streams.
 */
export type Silence = "absent" | "off" | "begun" | "ended" | "halted" | "failed" | "unreachable";

type Answer = { playlist: string } | { silence: Silence; reason: string };

/**
 * Resolves as soon as there is something to play, however long that takes. `told` hears after each attempt why there
 * is not; the reason is the server's own, for a person, and mostly empty. With `moving`, a playlist that is there must
 * change first: a player that lost its stream would else play the last second again and again.
 */
export async function untilLive(
  url: string,
  { moving }: { moving: boolean },
  told: (silence: Silence, reason: string) => void,
): Promise<void> {
  let before: string | undefined = moving ? undefined : "";
  for (;;) {
    const answer = await ask(url);
    if ("silence" in answer) {
      if (answer.silence !== "unreachable") before = ""; // what comes next is another stream
      told(answer.silence, answer.reason);
    } else {
      if (before !== undefined && before !== answer.playlist) return;
      before = answer.playlist;
      told("halted", "");
    }
    await pause("silence" in answer && answer.silence === "begun" ? SOON_MS : DELAY_MS);
  }
}

async function ask(url: string): Promise<Answer> {
  try {
    const response = await fetch(url, { cache: "no-store", signal: AbortSignal.timeout(ANSWER_TIMEOUT_MS) });
    const text = await response.text();
    if (response.status === 404) return { silence: text.includes('"no-live-streams"') ? "off" : "absent", reason: "" };
    if (response.ok) {
      if (text.includes("#EXT-X-ENDLIST")) return { silence: "ended", reason: "" };
      // hls.js wants a whole segment to begin with.
      return text.includes("#EXTINF:") ? { playlist: text } : { silence: "begun", reason: "" };
    }
    // Our server's own words are plain text; a page of a proxy's says only that the server is not there.
    const own = response.headers.get("Content-Type")?.startsWith("text/plain");
    if (own) return { silence: "failed", reason: text.trim().slice(0, LONGEST_REASON) };
  } catch {
    // no answer, or none in time
  }
  return { silence: "unreachable", reason: "" };
}

/** For so long, or until the person comes back to the page or the network to the machine. */
function pause(milliseconds: number): Promise<void> {
  return new Promise((resolve) => {
    const over = new AbortController();
    const end = (): void => {
      over.abort();
      clearTimeout(timer);
      resolve();
    };
    const timer = setTimeout(end, milliseconds);
    document.addEventListener("visibilitychange", () => document.hidden || end(), { signal: over.signal });
    addEventListener("online", end, { signal: over.signal });
  });
}
