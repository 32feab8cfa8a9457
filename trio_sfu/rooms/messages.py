"""The messages a room speaks: requests in, replies and events out (their envelopes: envelopes.py).

Anybody may import these; they are frozen values, and each survives JSON and msgpack, so that a room
can move into another process without its code changing. The tag of a request or an event
(``@``, e.g. ``joinRoom``) is its name on the wire; field names are in camelCase there.

Requests hold what a stranger sent: lengths and ranges are bounded by the types, so decode them with
``msgspec.convert(payload, REQUESTS[name], strict=True)``. What is inside ``app_data`` is the one
thing types cannot bound; signalling checks its size before.
"""

from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta

from trio_sfu.media.parameters import (
    DtlsParameters,
    IceCandidate,
    IceParameters,
    MediaKind,
    RtpCapabilities,
    RtpParameters,
)
from trio_sfu.media.stats import Stats

TAG_FIELD = "@"  # no name that a client's object could reasonably hold

RoomId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
# What a client may choose: it becomes part of a URL's path.
NewRoomId: TypeAlias = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,64}\Z")]
ResumeToken: TypeAlias = Annotated[str, Meta(min_length=1, max_length=128)]
ObjectId: TypeAlias = Annotated[str, Meta(min_length=1, max_length=64)]
Name: TypeAlias = Annotated[str, Meta(max_length=64)]
AppData: TypeAlias = dict[str, Any]
Direction: TypeAlias = Literal["producer", "consumer"]
Bitrate: TypeAlias = Annotated[int, Meta(ge=0, le=1_000_000_000)]
Layer: TypeAlias = Annotated[int, Meta(ge=0, le=255)]
LiveState: TypeAlias = Literal["starting", "live", "restarting", "failed", "ended"]


class Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel", tag_field=TAG_FIELD):
    """What all messages share; not for use by itself."""


# Requests: one for each row of the contract. `room_id` None means the user's only room.


class CreateRoom(Message, frozen=True, kw_only=True, tag="createRoom"):
    """Make a room and enter it. ``resumable``: see :class:`Resume`. Reply: :class:`RoomEntered`."""

    room_id: NewRoomId | None = None
    name: Name | None = None
    resumable: bool | None = None


class JoinRoom(Message, frozen=True, kw_only=True, tag="joinRoom"):
    """Enter a room; entering twice is no error. ``resumable``: see :class:`Resume`. Reply: :class:`RoomEntered`."""

    room_id: RoomId | None = None
    name: Name | None = None
    resumable: bool | None = None


class LeaveRoom(Message, frozen=True, kw_only=True, tag="leaveRoom"):
    """Leave: answered when all that the user owned there is closed. Reply: :class:`RoomLeft`."""

    room_id: RoomId | None = None


class GetRouterRtpCapabilities(Message, frozen=True, kw_only=True, tag="getRouterRtpCapabilities"):
    """Reply: :class:`RouterCapabilities`."""

    room_id: RoomId | None = None


class CreateProducerTransport(Message, frozen=True, kw_only=True, tag="createProducerTransport"):
    """A second one replaces the first. Reply: :class:`TransportCreated`."""

    room_id: RoomId | None = None


class CreateConsumerTransport(Message, frozen=True, kw_only=True, tag="createConsumerTransport"):
    """A second one replaces the first. Reply: :class:`TransportCreated`."""

    room_id: RoomId | None = None


class ConnectProducerTransport(Message, frozen=True, kw_only=True, tag="connectProducerTransport"):
    """Reply: :class:`TransportConnected`, when the parameters are accepted; the handshake follows."""

    dtls_parameters: DtlsParameters
    room_id: RoomId | None = None


class ConnectConsumerTransport(Message, frozen=True, kw_only=True, tag="connectConsumerTransport"):
    """Reply: :class:`TransportConnected`, when the parameters are accepted; the handshake follows."""

    dtls_parameters: DtlsParameters
    room_id: RoomId | None = None


class RestartIce(Message, frozen=True, kw_only=True, tag="restartIce"):
    """New ICE credentials for one of the user's transports. Reply: :class:`IceRestarted`."""

    transport_id: ObjectId
    room_id: RoomId | None = None


class Produce(Message, frozen=True, kw_only=True, tag="produce"):
    """Replaces the user's producer of the same kind and ``app_data["source"]``. Reply: :class:`Produced`."""

    kind: MediaKind
    rtp_parameters: RtpParameters
    app_data: AppData | None = None
    room_id: RoomId | None = None


class StopProducing(Message, frozen=True, kw_only=True, tag="stopProducing"):
    """Close all of the user's producers. Reply: :class:`ProducingStopped`."""

    room_id: RoomId | None = None


class ListProducers(Message, frozen=True, kw_only=True, tag="listProducers"):
    """Reply: :class:`ProducerList`, the other users' only."""

    room_id: RoomId | None = None


class PreferredLayers(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """mediasoup's ``ConsumerLayers``, see :class:`SetPreferredLayers`."""

    spatial_layer: Layer
    temporal_layer: Layer | None = None


class Consume(Message, frozen=True, kw_only=True, tag="consume"):
    """Reply: :class:`Consumed`."""

    producer_id: ObjectId
    rtp_capabilities: RtpCapabilities
    paused: bool | None = None
    preferred_layers: PreferredLayers | None = None
    room_id: RoomId | None = None


class CloseProducer(Message, frozen=True, kw_only=True, tag="closeProducer"):
    """Reply: :class:`Closed`."""

    producer_id: ObjectId
    room_id: RoomId | None = None


class PauseProducer(Message, frozen=True, kw_only=True, tag="pauseProducer"):
    """Reply: :class:`Paused`."""

    producer_id: ObjectId
    room_id: RoomId | None = None


class ResumeProducer(Message, frozen=True, kw_only=True, tag="resumeProducer"):
    """Reply: :class:`Resumed`."""

    producer_id: ObjectId
    room_id: RoomId | None = None


class CloseConsumer(Message, frozen=True, kw_only=True, tag="closeConsumer"):
    """Reply: :class:`Closed`."""

    consumer_id: ObjectId
    room_id: RoomId | None = None


class PauseConsumer(Message, frozen=True, kw_only=True, tag="pauseConsumer"):
    """Reply: :class:`Paused`."""

    consumer_id: ObjectId
    room_id: RoomId | None = None


class ResumeConsumer(Message, frozen=True, kw_only=True, tag="resumeConsumer"):
    """Reply: :class:`Resumed`."""

    consumer_id: ObjectId
    room_id: RoomId | None = None


class RequestKeyFrame(Message, frozen=True, kw_only=True, tag="requestKeyFrame"):
    """Reply: :class:`KeyFrameRequested`."""

    consumer_id: ObjectId
    room_id: RoomId | None = None


class SetPreferredLayers(Message, frozen=True, kw_only=True, tag="setPreferredLayers"):
    """The highest layers of a producer to get; too high means the highest, no ``temporal_layer`` all of them.

    ``spatial_layer`` is the place among the encodings of a simulcast producer. Reply: :class:`PreferredLayersSet`.
    """

    consumer_id: ObjectId
    spatial_layer: Layer
    temporal_layer: Layer | None = None
    room_id: RoomId | None = None


class SetConsumerPriority(Message, frozen=True, kw_only=True, tag="setConsumerPriority"):
    """Who of the user's consumers is served first where there is not bandwidth enough. Reply: :class:`PrioritySet`."""

    consumer_id: ObjectId
    priority: Annotated[int, Meta(ge=1, le=255)]
    room_id: RoomId | None = None


class SetMaxIncomingBitrate(Message, frozen=True, kw_only=True, tag="setMaxIncomingBitrate"):
    """How much the user's producer transport is to receive at most, in bit/s; 0: as much as the path carries.

    Reply: :class:`MaxIncomingBitrateSet`.
    """

    bitrate: Bitrate
    room_id: RoomId | None = None


class GetStats(Message, frozen=True, kw_only=True, tag="getStats"):
    """Of one of the user's transports, producers or consumers; of all of them where none is named.

    Reply: :class:`StatsRead`.
    """

    transport_id: ObjectId | None = None
    producer_id: ObjectId | None = None
    consumer_id: ObjectId | None = None
    room_id: RoomId | None = None


Request: TypeAlias = (
    CreateRoom
    | JoinRoom
    | LeaveRoom
    | GetRouterRtpCapabilities
    | CreateProducerTransport
    | CreateConsumerTransport
    | ConnectProducerTransport
    | ConnectConsumerTransport
    | RestartIce
    | Produce
    | StopProducing
    | ListProducers
    | Consume
    | CloseProducer
    | PauseProducer
    | ResumeProducer
    | CloseConsumer
    | PauseConsumer
    | ResumeConsumer
    | RequestKeyFrame
    | SetPreferredLayers
    | SetConsumerPriority
    | SetMaxIncomingBitrate
    | GetStats
)

# Replies: what an ack holds.


class RequestError(Message, frozen=True, kw_only=True, tag="error"):
    """A request that was not carried out: a kebab-case code, for programs, and a sentence."""

    code: str
    message: str = msgspec.field(name="error")


class RoomEntered(Message, frozen=True, kw_only=True, tag="roomEntered", omit_defaults=True):
    """The user is in this room now. The rest is signalling's, for those who asked to be resumable."""

    room_id: str
    resume_token: str | None = None
    resume_seconds: float | None = None


class RoomLeft(Message, frozen=True, kw_only=True, tag="roomLeft"):
    """The user is not in the room any more."""

    left: bool = True


class RouterCapabilities(Message, frozen=True, kw_only=True, tag="routerCapabilities"):
    """What the room's router can receive."""

    rtp_capabilities: RtpCapabilities


class IceServer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """WebRTC's ``RTCIceServer``: TURN servers, and what to show them."""

    urls: tuple[str, ...]
    username: str
    credential: str


class TransportCreated(Message, frozen=True, kw_only=True, omit_defaults=True, tag="transportCreated"):
    """What a client needs for its end of a transport. ``ice_servers``: for its peer connection, where there are any."""

    id: str
    ice_parameters: IceParameters
    ice_candidates: tuple[IceCandidate, ...]
    dtls_parameters: DtlsParameters
    ice_servers: tuple[IceServer, ...] | None = None


class TransportConnected(Message, frozen=True, kw_only=True, tag="transportConnected"):
    """The client's DTLS parameters are accepted."""

    connected: bool = True


class IceRestarted(Message, frozen=True, kw_only=True, tag="iceRestarted"):
    """What the client's own restart needs. Media goes on by the old path until the client has chosen a new one."""

    ice_parameters: IceParameters


class Produced(Message, frozen=True, kw_only=True, tag="produced"):
    """The new producer's id."""

    id: str


class ProducingStopped(Message, frozen=True, kw_only=True, tag="producingStopped"):
    """None of the user's producers is left."""

    stopped: bool = True


class ProducerEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One producer of a room, and whose it is."""

    user_id: str
    producer_id: str
    kind: MediaKind


class ListedProducer(ProducerEntry, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """One producer as ``listProducers`` tells it."""

    paused: bool
    app_data: AppData | None = None


class ProducerList(Message, frozen=True, kw_only=True, tag="producerList"):
    """The other users' producers, oldest first."""

    producers: tuple[ListedProducer, ...]


class Consumed(Message, frozen=True, kw_only=True, tag="consumed", omit_defaults=True):
    """What a client needs to receive a producer's media."""

    id: str
    producer_id: str
    kind: MediaKind
    rtp_parameters: RtpParameters
    type: str
    paused: bool
    producer_paused: bool
    app_data: AppData | None = None


class Closed(Message, frozen=True, kw_only=True, tag="closed"):
    """The producer or consumer is closed."""

    closed: bool = True


class Paused(Message, frozen=True, kw_only=True, tag="paused"):
    """The producer or consumer is paused."""

    paused: bool = True


class Resumed(Message, frozen=True, kw_only=True, tag="resumed"):
    """The producer or consumer is not paused any more."""

    resumed: bool = True


class KeyFrameRequested(Message, frozen=True, kw_only=True, tag="keyFrameRequested"):
    """The request is on its way, or joined to one that is."""

    requested: bool = True


class PreferredLayersSet(Message, frozen=True, kw_only=True, tag="preferredLayersSet", omit_defaults=True):
    """What is preferred now; absent where the producer has nothing to choose from, as in mediasoup."""

    spatial_layer: int | None = None
    temporal_layer: int | None = None


class PrioritySet(Message, frozen=True, kw_only=True, tag="prioritySet"):
    """The consumer's priority now."""

    priority: int


class MaxIncomingBitrateSet(Message, frozen=True, kw_only=True, tag="maxIncomingBitrateSet"):
    """The limit now."""

    bitrate: int


class StatsRead(Message, frozen=True, kw_only=True, tag="statsRead"):
    """Transports first, then producers' streams, then consumers, each with the stream that it is made from."""

    stats: tuple[Stats, ...]


Reply: TypeAlias = (
    RequestError
    | RoomEntered
    | RoomLeft
    | RouterCapabilities
    | TransportCreated
    | TransportConnected
    | IceRestarted
    | Produced
    | ProducingStopped
    | ProducerList
    | Consumed
    | Closed
    | Paused
    | Resumed
    | KeyFrameRequested
    | PreferredLayersSet
    | PrioritySet
    | MaxIncomingBitrateSet
    | StatsRead
)

# Between clients and signalling alone: rooms know users, not sockets.


class Resume(Message, frozen=True, kw_only=True, tag="resume"):
    """Speak for the user of this token, whose socket is lost. Reply: :class:`UserResumed`.

    ``received``: the events that came since the acknowledgement with this token, ``audioLevels`` not counted.
    """

    resume_token: ResumeToken
    received: Annotated[int, Meta(ge=0)] | None = None


class UserResumed(Message, frozen=True, kw_only=True, tag="userResumed"):
    """The socket speaks for this user now, who is in these rooms still. The token is the next one."""

    user_id: str
    room_ids: tuple[str, ...]
    resume_token: str
    resume_seconds: float


# Events. Each says its room, because a user may be in several.


class RoomProducersChanged(Message, frozen=True, kw_only=True, tag="roomProducersChanged"):
    """All producers of the room. To everyone at joins, leaves, produce, stop, close."""

    room_id: str
    producers: tuple[ProducerEntry, ...]


class NewProducer(Message, frozen=True, kw_only=True, tag="newProducer", omit_defaults=True):
    """To the others, at ``produce``."""

    room_id: str
    user_id: str
    producer_id: str
    kind: MediaKind
    app_data: AppData | None = None


class ProducerClosed(Message, frozen=True, kw_only=True, tag="producerClosed"):
    """To the others, whatever closed it; to its owner too where the owner did not ask for just that."""

    room_id: str
    producer_id: str
    user_id: str


class ProducerPaused(Message, frozen=True, kw_only=True, tag="producerPaused"):
    """To the others."""

    room_id: str
    producer_id: str
    user_id: str


class ProducerResumed(Message, frozen=True, kw_only=True, tag="producerResumed"):
    """To the others."""

    room_id: str
    producer_id: str
    user_id: str


class ConsumerClosed(Message, frozen=True, kw_only=True, tag="consumerClosed"):
    """To the consumer's owner, when its producer closed."""

    room_id: str
    consumer_id: str
    producer_id: str


class LayersChanged(Message, frozen=True, kw_only=True, tag="layersChanged"):
    """To the consumer's owner: the highest layers of a simulcast or SVC producer that are forwarded now, null while
    none are."""

    room_id: str
    consumer_id: str
    spatial_layer: int | None
    temporal_layer: int | None


class LayersWanted(Message, frozen=True, kw_only=True, tag="layersWanted"):
    """To the owner of a simulcast producer: the highest stream that anybody wants to see, null where nobody does.

    What is above may be switched off. More is told at once, less when it has lasted for 5 s.
    """

    room_id: str
    producer_id: str
    spatial_layer: int | None


class EncodingScore(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """mediasoup's ``ProducerScore``: how well one stream of a producer arrives, 0 (not at all) to 10."""

    encoding_idx: int
    ssrc: int
    score: int
    rid: str | None = None


class ConsumerScore(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """mediasoup's: how well a consumer's stream arrives, the producer's that it is made from, and all of these."""

    score: int
    producer_score: int
    producer_scores: tuple[int, ...]


class Score(Message, frozen=True, kw_only=True, tag="score", omit_defaults=True):
    """To the owner of a producer or a consumer, which is the one that is named, when a score has changed."""

    room_id: str
    score: tuple[EncodingScore, ...] | ConsumerScore
    producer_id: str | None = None
    consumer_id: str | None = None


class PeerEntry(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """One user of a room. ``name`` is what the user chose to be called, or None."""

    user_id: str
    name: str | None


class PeersChanged(Message, frozen=True, kw_only=True, tag="peersChanged"):
    """All users of the room, the longest there first. To everyone, at joins and leaves."""

    room_id: str
    peers: tuple[PeerEntry, ...]


class TransportClosed(Message, frozen=True, kw_only=True, tag="transportClosed"):
    """To the owner, when a transport failed or was lost: what ran on it is closed."""

    room_id: str
    transport_id: str
    direction: Direction
    reason: str


class PeerClosed(Message, frozen=True, kw_only=True, tag="peerClosed"):
    """To a user whom the server put out of the room, without a request of theirs."""

    room_id: str
    reason: str


class HlsStateChanged(Message, frozen=True, kw_only=True, omit_defaults=True, tag="hlsStateChanged"):
    """How the room's live stream is doing. To everyone, and to newcomers once it has begun.

    ``url``: the playlist's path on this server. ``reason`` (a sentence) where it failed; it is tried again.
    """

    room_id: str
    state: LiveState
    url: str
    reason: str | None = None


class ActiveSpeaker(Message, frozen=True, kw_only=True, tag="activeSpeaker"):
    """Who has begun to speak: mediasoup's ``dominantspeaker``. To everyone, and to newcomers once somebody has.

    It stays the one who spoke last. Both are null where that one has gone or paused, and nobody speaks.
    """

    room_id: str
    user_id: str | None
    producer_id: str | None


class AudioLevel(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """How loud a producer is. ``volume`` in dBov: -127 to 0, the loudest."""

    user_id: str
    producer_id: str
    volume: int


class AudioLevels(Message, frozen=True, kw_only=True, tag="audioLevels"):
    """The five loudest, the loudest first: mediasoup's ``volumes``. To everyone, every 0.3 s while anybody is audible.

    At the end it is empty once: mediasoup's ``silence``.
    """

    room_id: str
    levels: tuple[AudioLevel, ...]


EventPayload: TypeAlias = (
    RoomProducersChanged
    | NewProducer
    | ProducerClosed
    | ProducerPaused
    | ProducerResumed
    | ConsumerClosed
    | LayersChanged
    | LayersWanted
    | Score
    | PeersChanged
    | TransportClosed
    | PeerClosed
    | HlsStateChanged
    | ActiveSpeaker
    | AudioLevels
)


def tag_of(message: type[msgspec.Struct]) -> str:
    """The tag of a message's class: for requests and events, its name on the wire."""
    return str(message.__struct_config__.tag)


REQUESTS: dict[str, type[Request]] = {tag_of(cls): cls for cls in Request.__args__}


def to_wire(message: Message) -> dict[str, Any]:
    """The object a client gets: builtins only, camelCase, without the tag."""
    return to_wire_sized(message)[0]


def to_wire_sized(message: Message) -> tuple[dict[str, Any], int]:
    """As :func:`to_wire`, with about how many bytes of JSON that is."""
    # By way of JSON: to_builtins leaves tuples as they are.
    encoded = msgspec.json.encode(message)
    value: dict[str, Any] = msgspec.json.decode(encoded)
    del value[TAG_FIELD]
    return value, len(encoded)
