// The Socket.IO connection to the server: requests with acks, events, and word of when the line is up or down.

import { io, type Socket } from "socket.io-client";
import type { Events, Requests } from "./protocol";

const REQUEST_TIMEOUT_MS = 10_000;
const RECONNECT_AFTER_DISMISSAL_MS = 1_000;

/** The code where a server is too old for a request. */
export const UNKNOWN_EVENT = "unknown-event";

/** A request the server refused, or did not answer in time (`timeout`), or that had no line (`disconnected`). The message is for a person. */
export class RequestError extends Error {
  readonly code: string;

  constructor(message: string, code: string) {
    super(message);
    this.name = "RequestError";
    this.code = code;
  }
}

/** The code of a refusal; empty for any other error. */
export function codeOf(error: unknown): string {
  return error instanceof RequestError ? error.code : "";
}

export class Signalling {
  readonly #socket: Socket<Events>;
  #closed = false;
  /** What this server does not know: asked once a connection. */
  readonly #unknown = new Set<string>();
  #received = 0;

  /**
   * Connects at once and reconnects for as long as it is not closed. `up` is called for each new connection (which
   * has a new id, and is in no room until one is joined or resumed), `down` when one is lost or cannot be made;
   * `dismissed`, where the server ended it, so that there is nothing to resume.
   */
  constructor(up: () => void, down: (dismissed: boolean) => void) {
    this.#socket = io({
      path: "/ws",
      // WebSocket first, for a quick start; polling where something on the way does not let it through.
      transports: ["websocket", "polling"],
      tryAllTransports: true,
      reconnectionDelay: 500,
      reconnectionDelayMax: 4_000,
    });
    this.#socket.onAny((name: string) => {
      if (name !== "audioLevels") this.#received++;
    });
    this.#socket.on("connect", () => {
      this.#unknown.clear(); // it may be a newer server by now
      up();
    });
    this.#socket.on("disconnect", (reason) => {
      if (this.#closed) return;
      const dismissed = reason === "io server disconnect";
      down(dismissed);
      // Sent away by the server, socket.io-client does not come back by itself.
      if (dismissed) setTimeout(() => this.#reconnect(), RECONNECT_AFTER_DISMISSAL_MS);
    });
    this.#socket.on("connect_error", () => {
      if (this.#closed) return;
      down(false);
      if (!this.#socket.active) setTimeout(() => this.#reconnect(), RECONNECT_AFTER_DISMISSAL_MS);
    });
  }

  /** The connection's id; that of a user who joins by it. */
  get id(): string {
    return this.#socket.id ?? "";
  }

  get connected(): boolean {
    return this.#socket.connected;
  }

  /** How many events have come since the last answer that held a token to resume with, as `resume` wants to know. */
  get received(): number {
    return this.#received;
  }

  on<Name extends keyof Events>(name: Name, handler: Events[Name]): void {
    this.#socket.on(name, handler as never);
  }

  /** Ask and wait for the answer; rejects with RequestError. */
  async request<Name extends keyof Requests>(
    name: Name,
    payload: Requests[Name]["payload"],
  ): Promise<Requests[Name]["ack"]> {
    if (!this.#socket.connected) throw new RequestError("There is no connection to the server.", "disconnected");
    if (this.#unknown.has(name)) throw new RequestError("The server knows no such event.", UNKNOWN_EVENT);
    let ack: unknown;
    try {
      ack = await new Promise((answered, failed) => {
        (this.#socket as Socket).timeout(REQUEST_TIMEOUT_MS).emit(name, payload, (error: Error | null, answer: unknown) => {
          if (error) return failed(error);
          // Here and not later: the next event may come before whoever awaits this goes on.
          if (typeof answer === "object" && answer !== null && "resumeToken" in answer) this.#received = 0;
          answered(answer);
        });
      });
    } catch {
      if (!this.#socket.connected) throw new RequestError("The connection to the server was lost.", "disconnected");
      throw new RequestError("The server did not answer in time.", "timeout");
    }
    if (typeof ack === "object" && ack !== null && "error" in ack) {
      const { error, code } = ack as { error: unknown; code?: unknown };
      if (code === UNKNOWN_EVENT) this.#unknown.add(name);
      throw new RequestError(String(error), String(code ?? "error"));
    }
    return ack as Requests[Name]["ack"];
  }

  close(): void {
    this.#closed = true;
    this.#socket.disconnect();
  }

  #reconnect(): void {
    if (!this.#closed) this.#socket.connect();
  }
}
