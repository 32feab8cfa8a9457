// A call: entering a room, and staying in it through lost connections, by resuming or by entering anew.
// What is sent is outgoing.ts, what is received incoming.ts; the page hears of all changes through CallView.

import type { types } from "mediasoup-client";
import { Incoming, type IncomingView, type RemoteMedia } from "./incoming";
import type { Look } from "./demand";
import { watchNetwork } from "./network";
import { Outgoing } from "./outgoing";
import type { Entered, HlsState, PeerInfo, ProducerScore, ServerStats, Source } from "./protocol";
import { type Direction, Session, type Stay } from "./session";
import { codeOf, Signalling } from "./signalling";

const RETRY_MS = 2_000;
const FAREWELL_MS = 500;
const NO_WAY_THROUGH =
  "Sound and picture do not get through to the server; trying again. A firewall may block UDP, " +
  "or the server announces an address that cannot be reached from here.";

/** `resuming`: the line to the server is lost, media may go on; `reconnecting`: both are. */
export type CallState =
  | "joining"
  | "waiting"
  | "connecting"
  | "connected"
  | "interrupted"
  | "resuming"
  | "reconnecting"
  | "left";

/** Another participant; the name is empty where none is known. */
export interface Peer {
  userId: string;
  name: string;
}

export interface CallView extends IncomingView {
  stateChanged(state: CallState): void;
  peersChanged(others: Peer[]): void;
  /** Who speaks; undefined: nobody, or this person. */
  speakerChanged(userId?: string): void;
  /** The room's live stream; undefined: nothing is known of it. A failure's reason is for a person. */
  streamChanged(state?: HlsState, reason?: string): void;
  /** Something to tell the person; empty: what was told is over. */
  notice(text: string): void;
}

export class Call implements Stay {
  readonly roomId: string;
  readonly outgoing: Outgoing;
  readonly #incoming: Incoming;
  readonly #name: string;
  readonly #view: CallView;
  #peers: PeerInfo[] = [];
  #signalling: Signalling | undefined;
  #session: Session | undefined;
  #me = "";
  /** What to come back with to the same user, and for how long after losing the line. */
  #resumption: { token: string; seconds: number } | undefined;
  #resumptionEnds: ReturnType<typeof setTimeout> | undefined;
  #unwatchNetwork: (() => void) | undefined;
  #everJoined = false;
  #left = false;
  #unreachable = false;
  #warned = false;
  /** Counts the entries into the room: whoever awaited meanwhile sees that a newer one has begun. */
  #attempt = 0;
  #state: CallState | undefined;

  constructor(roomId: string, name: string, view: CallView) {
    this.roomId = roomId;
    this.#name = name;
    this.#view = view;
    this.outgoing = new Outgoing(this, (text) => view.notice(text));
    this.#incoming = new Incoming(this, view, () => this.#showPeers());
  }

  get me(): string {
    return this.#me;
  }

  get session(): Session | undefined {
    return this.#session;
  }

  get signalling(): Signalling | undefined {
    return this.#signalling;
  }

  /** What is being received. */
  get media(): RemoteMedia[] {
    return this.#incoming.media;
  }

  producer(source: Source): types.Producer | undefined {
    return this.#session?.producers.get(source);
  }

  /** How another's video is looked at: what is asked of the server follows it. */
  look(producerId: string, look: Look): void {
    this.#incoming.look(producerId, look);
  }

  /** The server's statistics of this user's transports, producers and consumers. Rejects with RequestError. */
  async serverStats(): Promise<ServerStats[]> {
    const { roomId } = this;
    return (await this.#signalling?.request("getStats", { roomId }))?.stats ?? [];
  }

  /** Enter the room. Rejects where the server says no; a server out of reach is tried until `leave`. */
  join(): Promise<void> {
    return new Promise((joined, refused) => {
      const signalling = new Signalling(
        () => void this.#lineUp(joined, refused),
        (dismissed) => (dismissed ? this.#lineGone() : this.#lineLost()),
      );
      this.#signalling = signalling;
      this.#unwatchNetwork = watchNetwork(() => this.#session?.networkChanged());
      this.#incoming.listen(signalling);
      signalling.on("peersChanged", ({ roomId, peers }) => {
        if (roomId !== this.roomId) return;
        this.#peers = peers;
        this.#showPeers();
      });
      signalling.on("activeSpeaker", ({ roomId, userId }) => {
        if (roomId === this.roomId) this.#view.speakerChanged(userId === this.#me ? undefined : (userId ?? undefined));
      });
      signalling.on("layersWanted", ({ roomId, producerId, spatialLayer }) => {
        if (roomId === this.roomId) this.outgoing.layersWanted(producerId, spatialLayer);
      });
      signalling.on("score", ({ producerId, score }) => {
        if (producerId !== undefined && Array.isArray(score)) this.outgoing.scored(producerId, score as ProducerScore[]);
      });
      signalling.on("transportClosed", ({ roomId, transportId, direction }) => {
        if (roomId === this.roomId) void this.#renew(direction === "producer" ? "send" : "receive", transportId);
      });
      signalling.on("hlsStateChanged", ({ roomId, state, reason }) => {
        if (roomId === this.roomId) this.#view.streamChanged(state, reason);
      });
      signalling.on("peerClosed", ({ roomId }) => {
        if (roomId !== this.roomId) return;
        // The server dropped us for a fault of its own: come back as someone new.
        this.#lineGone();
        this.#enterLater(joined, refused);
      });
      this.#update();
    });
  }

  /** Leave the room and close the connection. The tracks given to `outgoing` stay the caller's. */
  async leave(): Promise<void> {
    if (this.#left) return;
    this.#left = true;
    this.#unwatchNetwork?.();
    const { roomId } = this;
    const farewell = this.#signalling?.request("leaveRoom", { roomId }).catch(() => undefined);
    await Promise.race([farewell, new Promise((resolve) => setTimeout(resolve, FAREWELL_MS))]);
    this.#endSession();
    this.#signalling?.close();
    this.#update();
  }

  // Entering the room, and coming back to it

  async #lineUp(joined: () => void, refused: (error: unknown) => void): Promise<void> {
    if (this.#left) return;
    if (!this.#session?.ready || !this.#resumption) return this.#enter(joined, refused);
    const attempt = ++this.#attempt;
    try {
      await this.#resume(this.#session, this.#resumption.token, attempt);
    } catch (error) {
      // Without a line once more, the next one tries again; any other refusal is final.
      if (attempt !== this.#attempt || this.#left || codeOf(error) === "disconnected") return;
      await this.#enter(joined, refused);
    }
  }

  async #resume(session: Session, resumeToken: string, attempt: number): Promise<void> {
    const signalling = this.#signalling;
    if (!signalling) return;
    const { roomId } = this;
    // The events that were missed follow the answer.
    const resumed = await signalling.request("resume", { resumeToken, received: signalling.received });
    if (attempt !== this.#attempt) return;
    clearTimeout(this.#resumptionEnds);
    this.#me = resumed.userId;
    this.#rememberToken(resumed, resumeToken);
    if (!resumed.roomIds.includes(roomId)) throw new Error("The server keeps us in the room no more.");
    const { producers } = await signalling.request("listProducers", { roomId });
    if (attempt !== this.#attempt) return;
    this.#unreachable = false;
    this.#incoming.resync(producers);
    this.outgoing.syncAll();
    this.#update();
    await session.lineIsUp();
  }

  async #enter(joined: () => void, refused: (error: unknown) => void): Promise<void> {
    const signalling = this.#signalling;
    if (this.#left || !signalling) return;
    this.#endSession();
    this.#peers = [];
    this.#unreachable = false;
    const attempt = ++this.#attempt;
    const session = new Session(signalling, this.roomId, {
      transportChanged: () => this.#transportChanged(session),
      transportLost: (direction, transportId) => {
        if (session === this.#session) void this.#renew(direction, transportId);
      },
    });
    this.#session = session;
    this.#update();
    try {
      this.#me = signalling.id;
      const entered = await this.#joinOrCreate(signalling);
      if (attempt === this.#attempt) this.#rememberToken(entered);
      await session.load();
      if (attempt !== this.#attempt) return;
      this.#everJoined = true;
      this.#update();
      this.#showPeers();
      joined();
      this.outgoing.syncAll();
      const { producers } = await signalling.request("listProducers", { roomId: this.roomId });
      if (attempt === this.#attempt) for (const producer of producers) this.#incoming.discover(producer);
    } catch (error) {
      if (attempt !== this.#attempt || this.#left) return; // a newer attempt is under way, or none is wanted
      this.#endSession();
      if (this.#everJoined) {
        this.#update();
        signalling.request("leaveRoom", { roomId: this.roomId }).catch(() => undefined);
        this.#enterLater(joined, refused);
      } else if (signalling.connected) {
        this.#left = true;
        this.#unwatchNetwork?.();
        signalling.close();
        refused(error);
      } // else the next connection brings the next attempt
    }
  }

  #enterLater(joined: () => void, refused: (error: unknown) => void): void {
    const attempt = this.#attempt;
    setTimeout(() => {
      if (attempt === this.#attempt && this.#signalling?.connected) void this.#enter(joined, refused);
    }, RETRY_MS);
  }

  async #joinOrCreate(signalling: Signalling): Promise<Entered> {
    const entry = { roomId: this.roomId, name: this.#name, resumable: true };
    try {
      return await signalling.request("joinRoom", entry);
    } catch (error) {
      if (codeOf(error) !== "room-not-found") throw error;
    }
    try {
      return await signalling.request("createRoom", entry);
    } catch (error) {
      if (codeOf(error) !== "room-exists") throw error;
      return await signalling.request("joinRoom", entry); // someone else was quicker to create it
    }
  }

  /** A server that resumes hands out a new token each time, or goes on with the old one. */
  #rememberToken({ resumeToken, resumeSeconds }: Partial<Entered>, before?: string): void {
    const token = resumeToken ?? before;
    const seconds = resumeSeconds ?? this.#resumption?.seconds ?? 0;
    this.#resumption = token === undefined ? undefined : { token, seconds };
  }

  #lineLost(): void {
    if (!this.#resumption || !this.#session?.ready) return this.#lineGone();
    this.#attempt++;
    if (!this.#unreachable) {
      clearTimeout(this.#resumptionEnds);
      this.#resumptionEnds = setTimeout(() => this.#lineGone(), this.#resumption.seconds * 1_000);
    }
    this.#unreachable = true;
    this.#update();
  }

  /** The line is lost, and with it our place in the room. */
  #lineGone(): void {
    this.#attempt++;
    this.#unreachable = true;
    this.#endSession();
    this.#update();
  }

  #endSession(): void {
    clearTimeout(this.#resumptionEnds);
    this.#resumption = undefined;
    this.#view.streamChanged();
    this.#view.speakerChanged();
    this.#session?.close();
    this.#session = undefined;
    this.outgoing.forget();
    this.#incoming.clear();
  }

  #transportChanged(session: Session): void {
    if (session !== this.#session) return;
    this.#update();
    if (this.#warned && session.everConnected) {
      this.#warned = false;
      this.#view.notice("");
    }
  }

  /** Make a direction's transport anew with all that is to run on it, if it still is the one of that id. */
  async #renew(direction: Direction, transportId: string): Promise<void> {
    const session = this.#session;
    if (!session || !(await session.renew(direction, transportId)) || session.closed) return;
    if (!session.everConnected) {
      this.#warned = true;
      this.#view.notice(NO_WAY_THROUGH);
    }
    this.#update();
    if (direction === "send") this.outgoing.syncAll();
    else this.#incoming.receiveAgain(session);
  }

  // What the page is told

  #showPeers(): void {
    const others = new Map<string, Peer>();
    if (this.#session) {
      // Who only sends media is there too, whatever server or front end left the name out.
      for (const userId of this.#incoming.userIds) others.set(userId, { userId, name: "" });
      for (const { userId, name } of this.#peers) others.set(userId, { userId, name: name ?? "" });
    }
    others.delete(this.#me);
    this.#view.peersChanged([...others.values()]);
  }

  #update(): void {
    const state = this.#currentState();
    if (state === this.#state) return;
    this.#state = state;
    this.#view.stateChanged(state);
    if (state === "reconnecting") this.#showPeers();
  }

  #currentState(): CallState {
    if (this.#left) return "left";
    const session = this.#session;
    if (!session?.ready) {
      if (this.#everJoined) return "reconnecting";
      return this.#unreachable ? "waiting" : "joining";
    }
    const states = session.transportStates;
    const broken = states.includes("failed") || states.includes("disconnected") || session.repairing;
    if (this.#unreachable) return broken ? "reconnecting" : "resuming";
    if (broken) return "interrupted";
    if (states.includes("connecting") && !states.includes("connected")) return "connecting";
    return "connected";
  }
}
