// Word of the machine being in another network: from Wi-Fi to mobile, or back from none.

/** Several words of one change come together. */
const SETTLE_MS = 500;

/** Not in TypeScript's DOM, and not in every browser. `type` is known on phones; elsewhere only rates change. */
interface Connection extends EventTarget {
  readonly type?: string;
}

/** Call `changed` after each change, until the function that is returned is called. */
export function watchNetwork(changed: () => void): () => void {
  const { connection } = navigator as Navigator & { connection?: Connection };
  const controller = new AbortController();
  const { signal } = controller;
  let type = connection?.type;
  let timer: ReturnType<typeof setTimeout> | undefined;
  const soon = (): void => {
    clearTimeout(timer);
    timer = setTimeout(changed, SETTLE_MS);
  };
  addEventListener("online", soon, { signal });
  connection?.addEventListener(
    "change",
    () => {
      // "change" also tells of each new estimate of rate and delay, which is no other network.
      if (connection.type === type || connection.type === "none") return;
      type = connection.type;
      soon();
    },
    { signal },
  );
  return () => {
    controller.abort();
    clearTimeout(timer);
  };
}
