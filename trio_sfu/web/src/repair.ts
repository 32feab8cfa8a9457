// Repairing one transport's way through the network: ICE restarts with back-off, one at a time, and giving it up when
// they do not help. The session makes one for each transport; what a restart is, it is told.

import type { types } from "mediasoup-client";
import { codeOf, UNKNOWN_EVENT } from "./signalling";

/** A short break is none: the browser takes `disconnected` back by itself. */
const PATIENCE_MS = 1_000;
/** How long a restart has to help, each time twice as long as before. */
const FIRST_WAIT_MS = 2_000;
const RESTARTS = 3;

export interface RepairHands {
  /** Restart ICE; rejects with RequestError. */
  restart(): Promise<void>;
  /** The transport is beyond repair: make another. */
  giveUp(): void;
}

export class Repair {
  readonly #hands: RepairHands;
  #state: types.ConnectionState = "connecting";
  #everConnected = false;
  #restarts = 0;
  #underWay = false;
  /** The network changed while a restart was under way: that one may have gathered the old addresses. */
  #again = false;
  /** A restart could not be asked for: the line was down. */
  #owed = false;
  #closed = false;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(hands: RepairHands) {
    this.#hands = hands;
  }

  /** Whether the transport is without a way through and something is being done about it. */
  get active(): boolean {
    return this.#restarts > 0 && this.#state !== "connected";
  }

  stateChanged(state: types.ConnectionState): void {
    this.#state = state;
    if (state === "connected") {
      this.#everConnected = true;
      this.#restarts = 0;
      this.#wait();
    } else if (state === "disconnected") {
      if (this.#restarts === 0) this.#wait(PATIENCE_MS);
    } else if (state === "failed") {
      void this.#repair();
    }
  }

  /** The machine is in another network: the old way may be dead long before anybody notices. */
  networkChanged(): void {
    if (!this.#everConnected) return;
    this.#restarts = 0;
    this.#again = this.#underWay;
    void this.#repair();
  }

  /** Signalling works again: what could not be asked for meanwhile can be now. */
  lineIsUp(): void {
    this.#restarts = 0;
    if (this.#owed || (this.#everConnected && this.#state !== "connected")) void this.#repair();
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#timer);
  }

  #wait(milliseconds?: number): void {
    clearTimeout(this.#timer);
    if (milliseconds === undefined || this.#closed) return;
    this.#timer = setTimeout(() => {
      if (this.#state !== "connected") void this.#repair();
    }, milliseconds);
  }

  async #repair(): Promise<void> {
    if (this.#underWay || this.#closed) return;
    // Where nothing ever got through, another attempt at the same is of no use.
    if (!this.#everConnected || this.#restarts >= RESTARTS) return this.#giveUp();
    this.#wait();
    this.#underWay = true;
    this.#restarts++;
    let code = "";
    try {
      await this.#hands.restart();
    } catch (error) {
      code = codeOf(error) || "error";
    }
    this.#underWay = false;
    if (this.#closed) return;
    this.#owed = code === "disconnected";
    if (this.#owed) this.#restarts = 0; // lineIsUp comes back to it
    else if (code === UNKNOWN_EVENT) {
      this.#restarts = 0;
      if (this.#state === "failed") this.#giveUp();
    } else if (code.endsWith("-not-found")) this.#giveUp();
    else if (this.#again) {
      this.#again = false;
      void this.#repair();
    } else this.#wait(FIRST_WAIT_MS * 2 ** (this.#restarts - 1));
  }

  #giveUp(): void {
    this.close();
    this.#hands.giveUp();
  }
}
