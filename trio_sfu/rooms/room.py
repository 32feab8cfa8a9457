"""One room: a trio nursery with a task for each peer, the router, and what the peers share.

The registry starts :func:`run_room` and reaches it by envelopes only; peers (peer.py) call the
:class:`Room`. Everything here but the two tasks is synchronous: there is no await between reading
and writing what peers share.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Self
from urllib.parse import quote

import trio

from trio_sfu.media.producer import Producer
from trio_sfu.media.router import Router
from trio_sfu.rooms.envelopes import (
    CloseRoom,
    Event,
    FromRoom,
    MemberLeft,
    ReplyEnvelope,
    RequestEnvelope,
    RoomCounts,
    RoomEnded,
    RoomEnding,
    ToRoom,
)
from trio_sfu.rooms.live import LiveOutputFactory, LiveParticipant
from trio_sfu.rooms.messages import (
    ActiveSpeaker,
    ConsumerClosed,
    CreateRoom,
    EventPayload,
    HlsStateChanged,
    JoinRoom,
    LeaveRoom,
    ListedProducer,
    LiveState,
    PeerClosed,
    PeerEntry,
    PeersChanged,
    ProducerClosed,
    ProducerEntry,
    Reply,
    RequestError,
    RoomEntered,
    RoomLeft,
    RoomProducersChanged,
)
from trio_sfu.rooms.peer import LEFT, Peer
from trio_sfu.rooms.speakers import Speakers
from trio_sfu.rooms.ticker import Ticker
from trio_sfu.rooms.turn import TurnServers
from trio_sfu.transport.udp import UdpEndpoint
from trio_sfu.transport.webrtc import WebRtcTransport


@dataclass(frozen=True, slots=True)
class RoomLimits:
    """How much of everything there may be. A request beyond one is refused, nothing is dropped."""

    rooms: int = 10_000
    rooms_per_user: int = 16
    peers: int = 500  # in a room
    producers: int = 16  # of a peer
    consumers: int = 2_000  # of a peer
    room_inbox: int = 1024  # envelopes
    peer_inbox: int = 64  # envelopes
    request_seconds: float = 10.0  # a request not answered by then gets the code `timeout`


@dataclass(frozen=True, slots=True)
class RoomMedia:
    """How a room makes its media objects. Tests make others."""

    router: Callable[[], Router]
    transport: Callable[[Router], WebRtcTransport]
    live: LiveOutputFactory | None = None
    """None: rooms have no live streams."""
    turn: TurnServers | None = None
    """None: clients are told of no TURN server."""
    watch: Callable[[float, float], bool] | None = None
    """Called with every tick of all rooms, see :class:`Ticker`."""

    @classmethod
    def over(
        cls,
        endpoint: UdpEndpoint,
        *,
        connect_timeout: float = 30.0,
        consent_timeout: float = 30.0,
        live: LiveOutputFactory | None = None,
        turn: TurnServers | None = None,
    ) -> Self:
        """The real thing, on the process's media sockets. Both timeouts (seconds) are a transport's."""
        router = partial(Router, batch=endpoint.batch, overload=endpoint.load.overload)
        transport = partial(WebRtcTransport, endpoint, connect_timeout=connect_timeout, consent_timeout=consent_timeout)
        return cls(router, transport, live, turn, endpoint.load.tick)


def room_not_found() -> RequestError:
    """The contract's words for a room that is not there (any more)."""
    return RequestError(code="room-not-found", message="Room does not exist")


def not_in_room() -> RequestError:
    """The reply to a user who is not in the room they speak of."""
    return RequestError(code="not-in-room", message="You are not in this room")


async def run_room(
    room_id: str,
    first: RequestEnvelope,
    inbox: trio.MemoryReceiveChannel[ToRoom],
    post: Callable[[FromRoom], None],
    media: RoomMedia,
    limits: RoomLimits,
    ticker: Ticker,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Be a room: from its first user, who comes with ``first``, until it is empty.

    ``post`` must not block. Every envelope gets its reply, those in the inbox at the end too, and
    :class:`RoomEnded` is the last message, however the room ends. Owns and closes ``inbox``.
    """
    room = Room(room_id, post, media, limits)
    try:
        async with trio.open_nursery() as nursery:
            room.open(nursery, first)
            nursery.start_soon(room.keep_ticking, ticker)
            if room.live is not None:
                nursery.start_soon(room.live.run)
            task_status.started()
            async for message in inbox:
                room.receive(message)
                del message  # as in the peer
    finally:
        room.end()
        while True:
            try:
                room.receive(inbox.receive_nowait())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        inbox.close()
        post(RoomEnded(room_id=room_id))


class Room:
    """What the peers of one room share. Made by :func:`run_room`, called by it and by peers."""

    def __init__(self, room_id: str, post: Callable[[FromRoom], None], media: RoomMedia, limits: RoomLimits) -> None:
        # Given
        self.id = room_id
        self.media = media
        self.limits = limits
        self._post = post
        # Owned
        self.router = media.router()
        self._nursery: trio.Nursery | None = None
        self._peers: dict[str, Peer] = {}
        self._producers: dict[str, tuple[Peer, Producer]] = {}
        self._consumers: dict[str, dict[str, Peer]] = {}  # producer id → consumer id → its owner
        self._ticking: set[WebRtcTransport] = set()
        self._tick_wanted = trio.Event()
        self._ended = False
        self.speakers = Speakers(room_id, self._tell_of_speakers, lambda: len(self._peers))
        self.live = media.live(room_id, self.router, self._live_changed) if media.live is not None else None
        self._live_state: HlsStateChanged | None = None

    # For run_room

    def open(self, nursery: trio.Nursery, first: RequestEnvelope) -> None:
        """Take in the first user; peers run in ``nursery``, which is cancelled when the last one left."""
        self._nursery = nursery
        self.receive(first)

    def receive(self, message: ToRoom) -> None:
        """Carry out a message, or hand it to the task of the peer that it comes from."""
        if isinstance(message, CloseRoom):
            self.end()
            for peer in tuple(self._peers.values()):
                peer.leave(message.reason)
            return
        request = message.request
        peer_or_none = self._peers.get(message.user_id)
        if isinstance(request, CreateRoom | JoinRoom):
            self._join(message, request.name)
        elif peer_or_none is None:
            self._post(MemberLeft(room_id=self.id, user_id=message.user_id))
            self.reply(message.id, not_in_room())
        elif isinstance(request, LeaveRoom):
            peer_or_none.leave(LEFT, reply_to=message.id)
        else:
            peer_or_none.enqueue(message)

    def end(self) -> None:
        """Let nobody in any more."""
        if not self._ended:
            self._ended = True
            self._post(RoomEnding(room_id=self.id))

    async def keep_ticking(self, ticker: Ticker) -> None:
        """Drive the router's timers while any transport may carry media."""
        while True:
            if not self._ticking:
                self._tick_wanted = trio.Event()
                await self._tick_wanted.wait()
            await ticker.drive(self._tick)

    def _tick(self, now: float) -> bool:
        self.router.tick(now)
        self.speakers.tick(now)
        return bool(self._ticking)

    def _join(self, envelope: RequestEnvelope, name: str | None) -> None:
        peer = self._peers.get(envelope.user_id)
        refusal: RequestError | None = None
        if self._ended or self._nursery is None:
            refusal = room_not_found()
        elif peer is None and len(self._peers) >= self.limits.peers:
            refusal = RequestError(code="room-full", message="The room is full")
        elif peer is not None and peer.leaving:
            refusal = RequestError(code="overloaded", message="You are just leaving this room, try again")
        if refusal is not None or self._nursery is None:
            self._post(MemberLeft(room_id=self.id, user_id=envelope.user_id))
            self.reply(envelope.id, refusal or room_not_found())
            return
        if peer is None:
            peer = Peer(self, envelope.user_id, name)
            self._peers[envelope.user_id] = peer
            self._nursery.start_soon(peer.run)
            self._peers_changed()
            if self._live_state is not None:
                self.tell(peer, self._live_state)
            if self.speakers.active is not None:
                self.tell(peer, self.speakers.active)
        elif name is not None and name != peer.name:
            peer.name = name
            self._peers_changed()
        self.reply(envelope.id, RoomEntered(room_id=self.id))
        self.producers_changed()

    # For peers: the way out

    def reply(self, request_id: int, reply: Reply) -> None:
        """Answer a request."""
        self._post(ReplyEnvelope(id=request_id, reply=reply))

    def tell(self, peer: Peer, payload: EventPayload) -> None:
        """Send an event to one user."""
        self._post(Event(user_ids=(peer.user_id,), payload=payload))

    def tell_others(self, peer: Peer, payload: EventPayload) -> None:
        """Send an event to everyone in the room but this user."""
        self._tell_all(payload, but=peer)

    def _tell_all(self, payload: EventPayload, but: Peer | None = None) -> None:
        user_ids = tuple(p.user_id for p in self._peers.values() if p is not but and not p.leaving)
        if user_ids:
            self._post(Event(user_ids=user_ids, payload=payload))

    def _tell_of_speakers(self, payload: EventPayload) -> None:
        self._tell_all(payload)
        if self.live is not None and isinstance(payload, ActiveSpeaker) and payload.user_id is not None:
            self.live.speaks(payload.user_id)

    def producers_changed(self) -> None:
        """Tell everyone which producers there are now."""
        self._post_counts()
        producers = tuple(
            ProducerEntry(user_id=peer.user_id, producer_id=producer.id, kind=producer.kind)
            for peer, producer in self._producers.values()
        )
        self._tell_all(RoomProducersChanged(room_id=self.id, producers=producers))
        if self.live is not None:
            self.live.changed(self._live_participants())

    def _live_participants(self) -> tuple[LiveParticipant, ...]:
        """Who produces both audio and video, with a shared screen rather than a camera; the first to produce first."""
        own: dict[Peer, list[Producer]] = {}
        for peer, producer in self._producers.values():
            own.setdefault(peer, []).append(producer)
        participants = []
        for peer, producers in own.items():
            audio = next((each for each in producers if each.kind == "audio"), None)
            videos = [each for each in producers if each.kind == "video"]
            videos.sort(key=lambda each: each.app_data.get("source") == "screen", reverse=True)
            if audio is not None and videos:
                participants.append(LiveParticipant(peer.user_id, peer.name, audio, videos[0]))
        return tuple(participants)

    def _live_changed(self, state: LiveState, reason: str | None) -> None:
        self._live_state = HlsStateChanged(
            room_id=self.id, state=state, url=f"/hls/{quote(self.id, safe='')}/index.m3u8", reason=reason
        )
        self._tell_all(self._live_state)

    def _peers_changed(self) -> None:
        peers = tuple(PeerEntry(user_id=p.user_id, name=p.name) for p in self._peers.values())
        self._tell_all(PeersChanged(room_id=self.id, peers=peers))

    def _post_counts(self) -> None:
        self._post(
            RoomCounts(
                room_id=self.id,
                peers=len(self._peers),
                transports=sum(peer.transport_count for peer in self._peers.values()),
                producers=len(self._producers),
                consumers=sum(map(len, self._consumers.values())),
            )
        )

    # For peers: what they share

    def add_producer(self, peer: Peer, producer: Producer) -> None:
        """Let the others find a producer. The caller then calls :meth:`producers_changed`."""
        self._producers[producer.id] = (peer, producer)
        self._consumers[producer.id] = {}
        self.speakers.add(peer.user_id, producer)

    def find_producer(self, producer_id: str) -> Producer | None:
        """A producer of anyone in the room."""
        found = self._producers.get(producer_id)
        return None if found is None else found[1]

    def list_producers(self, but: Peer) -> tuple[ListedProducer, ...]:
        """The producers of everyone but this peer, oldest first."""
        return tuple(
            ListedProducer(
                user_id=peer.user_id,
                producer_id=producer.id,
                kind=producer.kind,
                paused=producer.paused,
                app_data=producer.app_data or None,
            )
            for peer, producer in self._producers.values()
            if peer is not but
        )

    def remove_producer(self, producer_id: str, *, tell_owner: bool) -> None:
        """Forget a producer and its consumers, and say so to their owners and to the others.

        The caller closes the producer itself, and then calls :meth:`producers_changed`.
        """
        found = self._producers.pop(producer_id, None)
        if found is None:
            return
        peer, _ = found
        self.speakers.remove(producer_id)
        for consumer_id, owner in self._consumers.pop(producer_id).items():
            owner.consumer_closed(consumer_id)
            event = ConsumerClosed(room_id=self.id, consumer_id=consumer_id, producer_id=producer_id)
            self.tell(owner, event)
        closed = ProducerClosed(room_id=self.id, producer_id=producer_id, user_id=peer.user_id)
        self._tell_all(closed, but=None if tell_owner else peer)

    def add_consumer(self, peer: Peer, consumer_id: str, producer_id: str) -> None:
        """Remember whose consumer of this producer that is."""
        self._consumers[producer_id][consumer_id] = peer
        self._post_counts()

    def remove_consumer(self, consumer_id: str, producer_id: str) -> None:
        """Forget a consumer that its owner closes."""
        self._consumers.get(producer_id, {}).pop(consumer_id, None)
        self._post_counts()

    def transport_starts(self, transport: WebRtcTransport) -> None:
        """From now on the router's timers matter."""
        self._ticking.add(transport)
        self._tick_wanted.set()

    def transport_ends(self, transport: WebRtcTransport) -> None:
        """The opposite; for a transport that never started too."""
        self._ticking.discard(transport)
        self._post_counts()

    def transport_created(self) -> None:
        """The numbers changed."""
        self._post_counts()

    def forget(self, peer: Peer, reason: str) -> None:
        """The last call of a peer's task: all that it owned is closed, and it is not in the room.

        ``reason`` is :data:`LEFT` or a sentence for its user. The last one out ends the room.
        """
        del self._peers[peer.user_id]
        self._post(MemberLeft(room_id=self.id, user_id=peer.user_id))
        if reason != LEFT:
            self.tell(peer, PeerClosed(room_id=self.id, reason=reason))
        for request_id in peer.leave_requests:
            self.reply(request_id, RoomLeft())
        if self._peers:
            self._peers_changed()
            self.producers_changed()
        else:
            self.end()
            if self._nursery is not None:
                self._nursery.cancel_scope.cancel()
