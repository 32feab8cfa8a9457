// The signalling part of the tests' client: one Socket.IO connection, requests with acks, and a log of the events.

import { io, type Socket } from "socket.io-client";

export type Json = Record<string, unknown>;

export const DEFAULT_TIMEOUT_MS = 10_000;

export interface ConnectOptions {
  url?: string;
  path?: string;
  transports?: ("polling" | "websocket")[];
  timeoutMs?: number;
  reconnection?: boolean;
  auth?: Json;
}

export interface LoggedEvent {
  name: string;
  payload: unknown;
  atMs: number;
}

export class Wire {
  /** The room that requests are about; empty: none. */
  protected roomId = "";
  #socket: Socket | undefined;
  #events: LoggedEvent[] = [];
  #listeners = new Set<(event: LoggedEvent) => void>();
  #resumeToken: string | undefined;
  /** Events since the acknowledgement with that token. */
  #received = 0;

  async connect(options: ConnectOptions = {}): Promise<{ socketId: string; transport: string }> {
    this.#socket?.disconnect();
    const { url = location.origin, path = "/ws", transports, timeoutMs = DEFAULT_TIMEOUT_MS, reconnection = false, auth } = options;
    const socket = io(url, {
      path,
      ...(transports ? { transports } : {}),
      ...(auth ? { auth } : {}),
      reconnection,
      forceNew: true,
      timeout: timeoutMs,
    });
    this.#socket = socket;
    this.#resumeToken = undefined;
    socket.onAny((name: string, payload: unknown) => {
      if (name !== "audioLevels") this.#received += 1;
      this.#log(name, payload);
    });
    socket.on("connect", () => void this.#resume());
    socket.on("disconnect", (reason) => this.#log("disconnect", reason));
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`connect: nothing came of it in ${timeoutMs} ms`)), timeoutMs);
      socket.once("connect", () => (clearTimeout(timer), resolve()));
      socket.once("connect_error", (error) => (clearTimeout(timer), reject(new Error(`connect: ${error.message}`))));
    }).catch((error: unknown) => {
      socket.disconnect();
      throw error;
    });
    return this.socketState() as { socketId: string; transport: string };
  }

  /** The Socket.IO id (null while not connected) and what carries it now: "polling" or "websocket". */
  socketState(): { socketId: string | null; connected: boolean; transport: string | null } {
    const socket = this.#socket;
    return {
      socketId: socket?.id ?? null,
      connected: socket?.connected ?? false,
      transport: socket?.io.engine?.transport?.name ?? null,
    };
  }

  /** One request; resolves with the ack, also where it is `{error, code}`. Rejects when no ack comes in time. */
  async ack(event: string, payload: unknown = {}, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<Json> {
    if (!this.#socket) throw new Error(`${event}: connect first`);
    const socket = this.#socket;
    return new Promise((resolve, reject) => {
      socket.timeout(timeoutMs).emit(event, payload, (error: Error | null, ack: Json) => {
        if (error) return reject(new Error(`${event}: no ack in ${timeoutMs} ms`));
        // Here and now: events that came with the acknowledgement count already when a promise is fulfilled.
        const token = (ack as Json | null)?.resumeToken;
        if (typeof token === "string" && token !== this.#resumeToken) {
          this.#resumeToken = token;
          this.#received = 0;
        }
        resolve(ack);
      });
    });
  }

  /** One request in the current room (`roomId` is added); rejects with "event: sentence [code]" where refused. */
  async request(event: string, payload: Json = {}, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<Json> {
    const ack = await this.ack(event, this.roomId ? { roomId: this.roomId, ...payload } : payload, timeoutMs);
    if (ack && typeof ack === "object" && "error" in ack) throw new Error(`${event}: ${String(ack.error)} [${String(ack.code)}]`);
    return ack;
  }

  /** An event without an ack. */
  emit(event: string, ...args: unknown[]): void {
    if (!this.#socket) throw new Error(`${event}: connect first`);
    this.#socket.emit(event, ...args);
  }

  async create(payload: Json = {}): Promise<string> {
    this.roomId = "";
    const { roomId } = await this.request("createRoom", payload);
    return (this.roomId = String(roomId));
  }

  async join(roomId: string, payload: Json = {}): Promise<string> {
    this.roomId = "";
    await this.request("joinRoom", { roomId, ...payload });
    return (this.roomId = roomId);
  }

  /** What the server sent so far, in order (of that name, where given). */
  events(name?: string): LoggedEvent[] {
    return this.#events.filter((event) => name === undefined || event.name === name);
  }

  clearEvents(): void {
    this.#events = [];
  }

  /** The first event of that name whose payload has all of `match`'s values: one that came already, or comes in time. */
  waitEvent(name: string, match: Json = {}, timeoutMs = DEFAULT_TIMEOUT_MS): Promise<unknown> {
    const fits = (event: LoggedEvent): boolean =>
      event.name === name &&
      Object.entries(match).every(([key, value]) => JSON.stringify((event.payload as Json | undefined)?.[key]) === JSON.stringify(value));
    const past = this.#events.find(fits);
    if (past) return Promise.resolve(past.payload);
    return new Promise((resolve, reject) => {
      const listener = (event: LoggedEvent): void => {
        if (!fits(event)) return;
        this.#listeners.delete(listener);
        clearTimeout(timer);
        resolve(event.payload);
      };
      const timer = setTimeout(() => {
        this.#listeners.delete(listener);
        reject(new Error(`no ${name} ${JSON.stringify(match)} in ${timeoutMs} ms`));
      }, timeoutMs);
      this.#listeners.add(listener);
    });
  }

  /** Drop the connection, as a closed page does. */
  disconnect(): void {
    this.#socket?.disconnect();
    this.#socket = undefined;
    this.roomId = "";
  }

  /** Every event passes here, after it is logged. */
  protected received(_name: string, _payload: unknown): void {}

  /** The connection was lost and is there again: a new socket, which speaks for the user of the old one. Logged as "resumed". */
  async #resume(): Promise<void> {
    if (this.#resumeToken === undefined) return;
    const payload = { resumeToken: this.#resumeToken, received: this.#received };
    this.#log("resumed", await this.ack("resume", payload));
  }

  #log(name: string, payload: unknown): void {
    const event = { name, payload, atMs: performance.now() };
    this.#events.push(event);
    for (const listener of [...this.#listeners]) listener(event);
    this.received(name, payload);
  }
}
