// The server's wire contract as types: every request with its payload and ack, every event with its payload.

import type { types } from "mediasoup-client";

export type MediaKind = types.MediaKind;
export type Source = "camera" | "microphone" | "screen";

export interface TransportInfo {
  id: string;
  iceParameters: types.IceParameters;
  iceCandidates: types.IceCandidate[];
  dtlsParameters: types.DtlsParameters;
  iceServers?: RTCIceServer[];
}

/** What entering a room tells; the token, where the server keeps a lost line's user for `resumeSeconds`. */
export interface Entered {
  roomId: string;
  resumeToken?: string;
  resumeSeconds?: number;
}

export interface Resumed {
  userId: string;
  roomIds: string[];
  resumeToken?: string;
  resumeSeconds?: number;
}

export interface ProducerInfo {
  userId: string;
  producerId: string;
  kind: MediaKind;
  appData?: { source?: string };
  paused?: boolean;
}

export interface PeerInfo {
  userId: string;
  name: string | null;
}

export interface ConsumerInfo {
  id: string;
  producerId: string;
  kind: MediaKind;
  rtpParameters: types.RtpParameters;
  type?: string;
  producerPaused?: boolean;
  appData?: { source?: string };
}

export type HlsState = "starting" | "live" | "restarting" | "failed" | "ended";

/** How well media comes, 0…10 as in mediasoup. */
export interface ConsumerScore {
  score: number;
  producerScore: number;
  producerScores: number[];
}

export interface ProducerScore {
  ssrc: number;
  rid?: string;
  encodingIdx: number;
  score: number;
}

/** An entry of the server's statistics, mediasoup's; what there is no number for is left out. */
export type ServerStats = { type: string } & Record<string, string | number | object | undefined>;

interface InRoom {
  roomId: string;
}

export interface Requests {
  createRoom: { payload: { roomId?: string; name?: string; resumable?: boolean }; ack: Entered };
  joinRoom: { payload: InRoom & { name?: string; resumable?: boolean }; ack: Entered };
  resume: { payload: { resumeToken: string; received?: number }; ack: Resumed };
  leaveRoom: { payload: InRoom; ack: object };
  getRouterRtpCapabilities: { payload: InRoom; ack: { rtpCapabilities: types.RtpCapabilities } };
  createProducerTransport: { payload: InRoom; ack: TransportInfo };
  connectProducerTransport: { payload: InRoom & { dtlsParameters: types.DtlsParameters }; ack: { connected: true } };
  createConsumerTransport: { payload: InRoom; ack: TransportInfo };
  connectConsumerTransport: { payload: InRoom & { dtlsParameters: types.DtlsParameters }; ack: { connected: true } };
  restartIce: { payload: InRoom & { transportId: string }; ack: { iceParameters: types.IceParameters } };
  produce: {
    payload: InRoom & { kind: MediaKind; rtpParameters: types.RtpParameters; appData?: object };
    ack: { id: string };
  };
  closeProducer: { payload: InRoom & { producerId: string }; ack: object };
  pauseProducer: { payload: InRoom & { producerId: string }; ack: object };
  resumeProducer: { payload: InRoom & { producerId: string }; ack: object };
  listProducers: { payload: InRoom; ack: { producers: ProducerInfo[] } };
  consume: {
    payload: InRoom & {
      producerId: string;
      rtpCapabilities: types.RtpCapabilities;
      paused?: boolean;
      preferredLayers?: { spatialLayer: number; temporalLayer?: number };
    };
    ack: ConsumerInfo;
  };
  pauseConsumer: { payload: InRoom & { consumerId: string }; ack: object };
  resumeConsumer: { payload: InRoom & { consumerId: string }; ack: object };
  setPreferredLayers: {
    payload: InRoom & { consumerId: string; spatialLayer: number; temporalLayer?: number };
    ack: { spatialLayer?: number; temporalLayer?: number };
  };
  setConsumerPriority: { payload: InRoom & { consumerId: string; priority: number }; ack: { priority: number } };
  getStats: { payload: InRoom & { transportId?: string }; ack: { stats: ServerStats[] } };
}

export interface Events {
  roomProducersChanged: (payload: InRoom & { producers: ProducerInfo[] }) => void;
  newProducer: (payload: ProducerInfo) => void;
  producerClosed: (payload: { producerId: string }) => void;
  producerPaused: (payload: { producerId: string }) => void;
  producerResumed: (payload: { producerId: string }) => void;
  consumerClosed: (payload: { consumerId: string; producerId: string }) => void;
  peersChanged: (payload: InRoom & { peers: PeerInfo[] }) => void;
  transportClosed: (payload: InRoom & { transportId: string; direction: "producer" | "consumer"; reason: string }) => void;
  layersChanged: (
    payload: InRoom & { consumerId: string; spatialLayer: number | null; temporalLayer?: number | null },
  ) => void;
  layersWanted: (payload: InRoom & { producerId: string; spatialLayer: number | null }) => void;
  score: (
    payload: InRoom & { consumerId?: string; producerId?: string; score: ConsumerScore | ProducerScore[] },
  ) => void;
  activeSpeaker: (payload: InRoom & { userId: string | null; producerId: string | null }) => void;
  hlsStateChanged: (payload: InRoom & { state: HlsState; reason?: string; url?: string }) => void;
  peerClosed: (payload: InRoom & { reason: string }) => void;
}
