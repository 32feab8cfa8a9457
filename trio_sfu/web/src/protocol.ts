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
  producerPaused?: boolean;
  appData?: { source?: string };
}

export type HlsState = "starting" | "live" | "restarting" | "failed" | "ended";

interface InRoom {
  roomId: string;
}

export interface Requests {
  createRoom: { payload: { roomId?: string; name?: string }; ack: { roomId: string } };
  joinRoom: { payload: InRoom & { name?: string }; ack: { roomId: string } };
  leaveRoom: { payload: InRoom; ack: object };
  getRouterRtpCapabilities: { payload: InRoom; ack: { rtpCapabilities: types.RtpCapabilities } };
  createProducerTransport: { payload: InRoom; ack: TransportInfo };
  connectProducerTransport: { payload: InRoom & { dtlsParameters: types.DtlsParameters }; ack: { connected: true } };
  createConsumerTransport: { payload: InRoom; ack: TransportInfo };
  connectConsumerTransport: { payload: InRoom & { dtlsParameters: types.DtlsParameters }; ack: { connected: true } };
  produce: {
    payload: InRoom & { kind: MediaKind; rtpParameters: types.RtpParameters; appData?: object };
    ack: { id: string };
  };
  closeProducer: { payload: InRoom & { producerId: string }; ack: object };
  pauseProducer: { payload: InRoom & { producerId: string }; ack: object };
  resumeProducer: { payload: InRoom & { producerId: string }; ack: object };
  listProducers: { payload: InRoom; ack: { producers: ProducerInfo[] } };
  consume: {
    payload: InRoom & { producerId: string; rtpCapabilities: types.RtpCapabilities; paused?: boolean };
    ack: ConsumerInfo;
  };
  resumeConsumer: { payload: InRoom & { consumerId: string }; ack: object };
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
  hlsStateChanged: (payload: InRoom & { state: HlsState; reason?: string; url?: string }) => void;
  peerClosed: (payload: InRoom & { reason: string }) => void;
}
