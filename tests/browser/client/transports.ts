// The device and the two transports of the tests' client: made at first use, or when a test asks for them.

import { Device, type types } from "mediasoup-client";
import { sleep } from "./helpers";
import { DEFAULT_TIMEOUT_MS, type Json, Wire } from "./wire";

export type Direction = "send" | "recv";

// Newer Chromiums than mediasoup-client knows by name are driven like the newest it does know.
const NEWEST_CHROME: types.BuiltinHandlerName = "Chrome111";

export class Transports extends Wire {
  #device: Device | undefined;
  #transports: Partial<Record<Direction, Promise<types.Transport>>> = {};
  #transportStates: Record<Direction, string[]> = { send: [], recv: [] };
  #portMap = new Map<number, { port: number; address?: string }>();
  #protocols: readonly string[] | undefined;
  #policy: RTCIceTransportPolicy = "all";

  async loadDevice(): Promise<Json> {
    const { rtpCapabilities } = await this.request("getRouterRtpCapabilities");
    let device: Device;
    try {
      device = new Device();
    } catch {
      device = new Device({ handlerName: NEWEST_CHROME });
    }
    await device.load({ routerRtpCapabilities: rtpCapabilities as types.RtpCapabilities });
    this.#device = device;
    const names = (caps: types.RtpCapabilities): string[] => (caps.codecs ?? []).map(({ mimeType }) => mimeType);
    return {
      handler: device.handlerName,
      canProduceAudio: device.canProduce("audio"),
      canProduceVideo: device.canProduce("video"),
      sendCodecs: names(device.sendRtpCapabilities),
      recvCodecs: names(device.recvRtpCapabilities),
    };
  }

  /** The device's receiving capabilities, as `consume` sends them. */
  rtpCapabilities(): types.RtpCapabilities {
    return this.loaded().recvRtpCapabilities;
  }

  /** From now on, transports' candidates with port `from` (0: any) get port `to` (and `address`): the way to a relay. */
  mapCandidatePort(from: number, to: number, address?: string): void {
    this.#portMap.set(from, { port: to, ...(address ? { address } : {}) });
  }

  /** From now on, transports see only the server's candidates of these protocols: "udp", "tcp". */
  useProtocols(protocols: string[]): void {
    this.#protocols = protocols;
  }

  /** From now on, transports use no candidates of their own but those of TURN servers ("relay"), or any ("all"). */
  usePolicy(policy: RTCIceTransportPolicy): void {
    this.#policy = policy;
  }

  /** Make a direction's transport now instead of at first use; again: a fresh one. Resolves with the server's ack. */
  async createTransport(direction: Direction): Promise<Json> {
    const old = this.#transports[direction];
    delete this.#transports[direction];
    (await old)?.close();
    let ack: Json = {};
    const made = this.#makeTransport(direction, (answer) => (ack = answer));
    this.#transports[direction] = made;
    await made.catch((error: unknown) => {
      delete this.#transports[direction];
      throw error;
    });
    return ack;
  }

  /** Request `restartIce` for a direction's transport and restart there; what the server answered. */
  async restartIce(direction: Direction): Promise<Json> {
    const transport = await this.transport(direction);
    const { iceParameters } = await this.request("restartIce", { transportId: transport.id });
    await transport.restartIce({ iceParameters: iceParameters as types.IceParameters });
    return iceParameters as Json;
  }

  /** Every connection state each transport went through, oldest first. */
  transportStates(): Record<Direction, string[]> {
    return structuredClone(this.#transportStates);
  }

  /** Resolves when the transport of that direction is in that state, with the milliseconds it took. */
  async waitTransport(direction: Direction, state = "connected", timeoutMs = DEFAULT_TIMEOUT_MS): Promise<number> {
    const start = performance.now();
    while (this.#transportStates[direction].at(-1) !== state) {
      if (performance.now() - start > timeoutMs) {
        throw new Error(`${direction} transport is not ${state} in ${timeoutMs} ms: ${this.#transportStates[direction].join(" → ") || "none"}`);
      }
      await sleep(5);
    }
    return performance.now() - start;
  }

  // The insides

  protected loaded(): Device {
    if (!this.#device) throw new Error("loadDevice first");
    return this.#device;
  }

  protected transport(direction: Direction): Promise<types.Transport> {
    return (this.#transports[direction] ??= this.#makeTransport(direction).catch((error: unknown) => {
      delete this.#transports[direction];
      throw error;
    }));
  }

  async #makeTransport(direction: Direction, told?: (ack: Json) => void): Promise<types.Transport> {
    const device = this.loaded();
    const role = direction === "send" ? "Producer" : "Consumer";
    const ack = await this.request(`create${role}Transport`);
    told?.(ack);
    const { id, iceParameters, iceCandidates, dtlsParameters, iceServers } = ack as unknown as types.TransportOptions;
    const offered = iceCandidates.filter(({ protocol }) => this.#protocols?.includes(protocol) ?? true);
    const candidates = offered.map((candidate) => {
      const mapped = this.#portMap.get(candidate.port) ?? this.#portMap.get(0);
      if (!mapped) return candidate;
      const { port, address = candidate.address } = mapped;
      return { ...candidate, port, address, ip: address };
    });
    const options = {
      id,
      iceParameters,
      iceCandidates: candidates,
      dtlsParameters,
      ...(iceServers ? { iceServers } : {}),
      iceTransportPolicy: this.#policy,
    };
    const transport = direction === "send" ? device.createSendTransport(options) : device.createRecvTransport(options);
    this.#transportStates[direction] = [transport.connectionState];
    transport.on("connect", ({ dtlsParameters: own }, done, failed) => {
      this.request(`connect${role}Transport`, { dtlsParameters: own }).then(() => done(), failed);
    });
    transport.on("produce", ({ kind, rtpParameters, appData }, done, failed) => {
      this.request("produce", { kind, rtpParameters, appData }).then((answer) => done({ id: String(answer.id) }), failed);
    });
    transport.on("connectionstatechange", (state) => this.#transportStates[direction].push(state));
    return transport;
  }

  /** The transport of that direction if there is one that is open. */
  protected async opened(direction: Direction): Promise<types.Transport | undefined> {
    const found = await this.#transports[direction]?.catch(() => undefined);
    return found?.closed ? undefined : found;
  }

  protected async closeTransports(): Promise<void> {
    const transports = Object.values(this.#transports);
    this.#transports = {};
    for (const each of transports) (await each.catch(() => undefined))?.close();
  }
}
