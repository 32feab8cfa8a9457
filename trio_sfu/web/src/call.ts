// A call: what this person sends, what the others send, and staying in the room through lost connections.
// It holds what is wanted; each Session is one attempt at it. The page hears of all changes through CallView.

import type { types } from "mediasoup-client";
import type { HlsState, PeerInfo, ProducerInfo, Source } from "./protocol";
import { type Direction, Session } from "./session";
import { RequestError, Signalling } from "./signalling";

const RETRY_MS = 2_000;
const FAREWELL_MS = 500;
const NO_WAY_THROUGH =
  "Sound and picture do not get through to the server; trying again. A firewall may block UDP, " +
  "or the server announces an address that cannot be reached from here.";

export type CallState = "joining" | "waiting" | "connecting" | "connected" | "interrupted" | "reconnecting" | "left";

/** Something another participant sends. `consumer` is there once it is being received. */
export interface RemoteMedia {
  readonly producerId: string;
  readonly userId: string;
  readonly kind: types.MediaKind;
  source: Source;
  paused: boolean;
  consumer?: types.Consumer;
  /** The consuming under way or done; a newer one makes an older one's outcome void. */
  asked?: {
    /** An event told of `paused` meanwhile: its word is newer than the answer's. */
    pausedTold: boolean;
  };
}

/** Another participant; the name is empty where none is known. */
export interface Peer {
  userId: string;
  name: string;
}

export interface CallView {
  stateChanged(state: CallState): void;
  peersChanged(others: Peer[]): void;
  mediaAdded(media: RemoteMedia, consumer: types.Consumer): void;
  mediaRemoved(media: RemoteMedia): void;
  mediaPaused(media: RemoteMedia): void;
  /** The room's live stream; undefined: nothing is known of it. A failure's reason is for a person. */
  streamChanged(state?: HlsState, reason?: string): void;
  /** Something to tell the person; empty: what was told is over. */
  notice(text: string): void;
}

interface LocalMedia {
  track: MediaStreamTrack | null;
  paused: boolean;
}

export class Call {
  readonly roomId: string;
  readonly #name: string;
  readonly #view: CallView;
  readonly #local = new Map<Source, LocalMedia>();
  readonly #remote = new Map<string, RemoteMedia>();
  #peers: PeerInfo[] = [];
  #signalling: Signalling | undefined;
  #session: Session | undefined;
  #localWork: Promise<void> = Promise.resolve();
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
  }

  /** Enter the room. Rejects where the server says no; a server out of reach is tried until `leave`. */
  join(): Promise<void> {
    return new Promise((joined, refused) => {
      const signalling = new Signalling(
        () => void this.#enter(joined, refused),
        () => this.#lineLost(),
      );
      this.#signalling = signalling;
      signalling.on("peersChanged", ({ roomId, peers }) => {
        if (roomId !== this.roomId) return;
        this.#peers = peers;
        this.#showPeers();
      });
      signalling.on("newProducer", (producer) => this.#discover(producer));
      signalling.on("producerClosed", ({ producerId }) => this.#forget(producerId));
      signalling.on("producerPaused", ({ producerId }) => this.#setPaused(producerId, true));
      signalling.on("producerResumed", ({ producerId }) => this.#setPaused(producerId, false));
      signalling.on("consumerClosed", ({ consumerId, producerId }) => {
        const media = this.#remote.get(producerId);
        if (media?.consumer?.id === consumerId) this.#detach(media);
      });
      signalling.on("roomProducersChanged", ({ roomId, producers }) => {
        if (roomId === this.roomId) this.#reconcile(producers);
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
        this.#lineLost();
        this.#enterLater(joined, refused);
      });
      this.#update();
    });
  }

  /** Leave the room and close the connection. The tracks given to `send` stay the caller's. */
  async leave(): Promise<void> {
    if (this.#left) return;
    this.#left = true;
    const { roomId } = this;
    const farewell = this.#signalling?.request("leaveRoom", { roomId }).catch(() => undefined);
    await Promise.race([farewell, new Promise((resolve) => setTimeout(resolve, FAREWELL_MS))]);
    this.#endSession();
    this.#signalling?.close();
    this.#update();
  }

  /** Send this track as `source` from now on, in place of one sent before. */
  send(source: Source, track: MediaStreamTrack, paused = false): Promise<void> {
    this.#local.set(source, { track, paused });
    return this.#syncLocal(source);
  }

  /** Stop sending for the moment; with `release`, let go of the track too (the camera's light goes out). */
  pause(source: Source, release: boolean): Promise<void> {
    const local = this.#local.get(source);
    if (!local) return Promise.resolve();
    this.#local.set(source, { track: release ? null : local.track, paused: true });
    return this.#syncLocal(source);
  }

  /** Stop sending `source` for good. */
  stop(source: Source): Promise<void> {
    this.#local.delete(source);
    return this.#syncLocal(source);
  }

  producer(source: Source): types.Producer | undefined {
    return this.#session?.producers.get(source);
  }

  // Entering the room, and coming back to it

  async #enter(joined: () => void, refused: (error: unknown) => void): Promise<void> {
    const signalling = this.#signalling;
    if (this.#left || !signalling) return;
    this.#endSession();
    this.#peers = [];
    this.#unreachable = false;
    const attempt = ++this.#attempt;
    const session = new Session(signalling, this.roomId, {
      transportChanged: (direction, state) => this.#transportChanged(session, direction, state),
    });
    this.#session = session;
    this.#update();
    try {
      await this.#joinOrCreate(signalling);
      await session.load();
      if (attempt !== this.#attempt) return;
      this.#everJoined = true;
      this.#update();
      this.#showPeers();
      joined();
      for (const source of this.#local.keys()) void this.#syncLocal(source);
      const { producers } = await signalling.request("listProducers", { roomId: this.roomId });
      if (attempt === this.#attempt) for (const producer of producers) this.#discover(producer);
    } catch (error) {
      if (attempt !== this.#attempt || this.#left) return; // a newer attempt is under way, or none is wanted
      this.#endSession();
      if (this.#everJoined) {
        this.#update();
        signalling.request("leaveRoom", { roomId: this.roomId }).catch(() => undefined);
        this.#enterLater(joined, refused);
      } else if (signalling.connected) {
        this.#left = true;
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

  async #joinOrCreate(signalling: Signalling): Promise<void> {
    const { roomId } = this;
    const name = this.#name;
    try {
      await signalling.request("joinRoom", { roomId, name });
      return;
    } catch (error) {
      if (codeOf(error) !== "room-not-found") throw error;
    }
    try {
      await signalling.request("createRoom", { roomId, name });
    } catch (error) {
      if (codeOf(error) !== "room-exists") throw error;
      await signalling.request("joinRoom", { roomId, name }); // someone else was quicker to create it
    }
  }

  #lineLost(): void {
    this.#attempt++;
    this.#unreachable = true;
    this.#endSession();
    this.#update();
  }

  #endSession(): void {
    this.#view.streamChanged();
    this.#session?.close();
    this.#session = undefined;
    for (const producerId of [...this.#remote.keys()]) this.#forget(producerId);
  }

  #transportChanged(session: Session, direction: Direction, state: types.ConnectionState): void {
    if (session !== this.#session) return;
    this.#update();
    if (state === "failed") void this.#renew(direction);
    if (state === "connected" && this.#warned) {
      this.#warned = false;
      this.#view.notice("");
    }
  }

  /** Make a direction's transport anew with all that is to run on it; where an id is given, only if it is that one. */
  async #renew(direction: Direction, transportId?: string): Promise<void> {
    const session = this.#session;
    if (!session || !(await session.renew(direction, transportId)) || session.closed) return;
    if (!session.everConnected) {
      this.#warned = true;
      this.#view.notice(NO_WAY_THROUGH);
    }
    this.#update();
    if (direction === "send") {
      for (const source of this.#local.keys()) void this.#syncLocal(source);
    } else {
      for (const media of this.#remote.values()) {
        this.#detach(media);
        void this.#receive(session, media);
      }
    }
  }

  // What this person sends

  #syncLocal(source: Source): Promise<void> {
    // One after the other: each looks at what is wanted by then, so that quick clicks end in the last one's state.
    const done = this.#localWork.then(() => this.#syncLocalNow(source));
    this.#localWork = done.catch(() => undefined);
    return done.catch((error: unknown) => {
      if (this.#session?.ready) this.#view.notice(`Your ${source} could not be sent: ${text(error)}`);
    });
  }

  async #syncLocalNow(source: Source): Promise<void> {
    const session = this.#session;
    const signalling = this.#signalling;
    if (!session?.ready || !signalling) return; // entering the room comes back to it
    const { roomId } = this;
    const local = this.#local.get(source);
    let producer = session.producers.get(source);
    if (!local) {
      if (!producer) return;
      producer.close();
      await signalling.request("closeProducer", { roomId, producerId: producer.id });
      return;
    }
    if (!producer) {
      if (!local.track || local.track.readyState === "ended") return;
      local.track.enabled = !local.paused; // a disabled track makes a producer that begins paused
      producer = await session.produce(source, local.track);
      if (local.paused) await signalling.request("pauseProducer", { roomId, producerId: producer.id });
      return;
    }
    if (producer.track !== local.track) await producer.replaceTrack({ track: local.track });
    if (local.paused === producer.paused) return;
    if (local.paused) producer.pause();
    else producer.resume();
    await signalling.request(local.paused ? "pauseProducer" : "resumeProducer", { roomId, producerId: producer.id });
  }

  // What the others send

  #reconcile(producers: ProducerInfo[]): void {
    const present = new Set(producers.map(({ producerId }) => producerId));
    for (const producerId of [...this.#remote.keys()]) if (!present.has(producerId)) this.#forget(producerId);
    for (const producer of producers) this.#discover(producer);
  }

  #discover({ userId, producerId, kind, appData, paused }: ProducerInfo): void {
    const session = this.#session;
    if (!session?.ready || userId === this.#signalling?.id || this.#remote.has(producerId)) return;
    const media: RemoteMedia = { producerId, userId, kind, source: sourceOf(kind, appData?.source), paused: paused ?? false };
    this.#remote.set(producerId, media);
    this.#showPeers();
    void this.#receive(session, media);
  }

  async #receive(session: Session, media: RemoteMedia): Promise<void> {
    const asked = { pausedTold: false };
    media.asked = asked;
    const current = (): boolean =>
      !session.closed && media.asked === asked && this.#remote.get(media.producerId) === media;
    try {
      const { consumer, source, paused } = await session.consume(media.producerId);
      if (!current() || consumer.closed) return consumer.close();
      media.source = sourceOf(media.kind, source ?? media.source);
      if (!asked.pausedTold) media.paused = paused;
      media.consumer = consumer;
      this.#view.mediaAdded(media, consumer);
    } catch (error) {
      // A producer or a transport may close while it is being asked for: word of that is on its way.
      if (!current() || codeOf(error).endsWith("-not-found") || codeOf(error) === "disconnected") return;
      this.#view.notice(`Someone's ${media.source} cannot be shown: ${text(error)}`);
    }
  }

  #setPaused(producerId: string, paused: boolean): void {
    const media = this.#remote.get(producerId);
    if (!media) return;
    media.paused = paused;
    if (media.asked) media.asked.pausedTold = true;
    if (media.consumer) this.#view.mediaPaused(media);
  }

  #detach(media: RemoteMedia): void {
    if (!media.consumer) return;
    media.consumer.close();
    media.consumer = undefined;
    this.#view.mediaRemoved(media);
  }

  #forget(producerId: string): void {
    const media = this.#remote.get(producerId);
    if (!media) return;
    this.#remote.delete(producerId);
    this.#detach(media);
    this.#showPeers();
  }

  // What the page is told

  #showPeers(): void {
    const me = this.#signalling?.id;
    const others = new Map<string, Peer>();
    if (this.#session) {
      // Who only sends media is there too, whatever server or front end left the name out.
      for (const { userId } of this.#remote.values()) others.set(userId, { userId, name: "" });
      for (const { userId, name } of this.#peers) others.set(userId, { userId, name: name ?? "" });
    }
    others.delete(me ?? "");
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
    if (!this.#session?.ready) {
      if (this.#everJoined) return "reconnecting";
      return this.#unreachable ? "waiting" : "joining";
    }
    const states = this.#session.transportStates;
    if (states.includes("failed") || states.includes("disconnected")) return "interrupted";
    if (states.includes("connecting") && !states.includes("connected")) return "connecting";
    return "connected";
  }
}

/** The server's word for a refusal; empty for any other error. */
function codeOf(error: unknown): string {
  return error instanceof RequestError ? error.code : "";
}

function sourceOf(kind: types.MediaKind, source: string | undefined): Source {
  if (kind === "audio") return "microphone";
  return source === "screen" ? "screen" : "camera";
}

function text(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
