"""One user's part of a room: a task that owns the user's transports and what runs on them.

Made and run by the room. This is where the room's one fault boundary is: a bug in the handling of
one peer, be it of a request or of a packet, is logged and drops that peer, never the room.
"""

import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import TYPE_CHECKING, Final

import trio

from trio_sfu.media.consumer import Consumer
from trio_sfu.media.errors import MediaError
from trio_sfu.media.frame_mark import EVERYTHING, Layers
from trio_sfu.media.parameters import DtlsParameters
from trio_sfu.media.producer import Producer
from trio_sfu.media.stats import Stats, consumer_stats, producer_stats, transport_stats
from trio_sfu.rooms.envelopes import RequestEnvelope
from trio_sfu.rooms.messages import (
    CloseConsumer,
    Closed,
    CloseProducer,
    ConnectConsumerTransport,
    ConnectProducerTransport,
    Consume,
    Consumed,
    ConsumerScore,
    CreateConsumerTransport,
    CreateProducerTransport,
    Direction,
    EncodingScore,
    GetRouterRtpCapabilities,
    GetStats,
    IceRestarted,
    KeyFrameRequested,
    LayersChanged,
    LayersWanted,
    ListProducers,
    MaxIncomingBitrateSet,
    NewProducer,
    PauseConsumer,
    Paused,
    PauseProducer,
    PreferredLayers,
    PreferredLayersSet,
    PrioritySet,
    Produce,
    Produced,
    ProducerList,
    ProducerPaused,
    ProducerResumed,
    ProducingStopped,
    Reply,
    Request,
    RequestError,
    RequestKeyFrame,
    RestartIce,
    ResumeConsumer,
    Resumed,
    ResumeProducer,
    RouterCapabilities,
    Score,
    SetConsumerPriority,
    SetMaxIncomingBitrate,
    SetPreferredLayers,
    StatsRead,
    StopProducing,
    TransportClosed,
    TransportConnected,
    TransportCreated,
)
from trio_sfu.transport.webrtc import WebRtcTransport

if TYPE_CHECKING:
    from trio_sfu.rooms.room import Room

logger = logging.getLogger(__name__)

LEFT: Final = "left"  # the reason that needs no telling
FAULT: Final = "An error in the server; join again"
ROOM_CLOSED: Final = "The room was closed"

# Statistics are read off the same core that forwards media: so many at once, and so many a second.
_STATS_BURST: Final = 1000.0
_STATS_PER_SECOND: Final = 1000.0


class Peer:
    """A user in a room. The room calls it; :meth:`run` is its task, and ends with the membership."""

    def __init__(self, room: "Room", user_id: str, name: str | None) -> None:
        # Given
        self.user_id = user_id
        self.name = name
        self._room = room
        # Owned
        self.leave_requests: list[int] = []
        self._send, self._receive = trio.open_memory_channel[RequestEnvelope](room.limits.peer_inbox)
        self._scope = trio.CancelScope()
        self._nursery: trio.Nursery | None = None
        self._transports: dict[Direction, WebRtcTransport] = {}
        self._producers: dict[str, Producer] = {}
        self._consumers: dict[str, Consumer] = {}
        self._stats_credit = _STATS_BURST
        self._stats_credit_at = 0.0
        # Derived
        self._reason: str | None = None
        self._current: RequestEnvelope | None = None

    # For the room

    @property
    def leaving(self) -> bool:
        """Whether this peer is on its way out."""
        return self._reason is not None

    @property
    def transport_count(self) -> int:
        """How many transports there are, 0 to 2."""
        return len(self._transports)

    def enqueue(self, envelope: RequestEnvelope) -> None:
        """Take a request. One user has few in flight, so what exceeds the inbox is refused."""
        if self.leaving:
            self._room.reply(envelope.id, _gone())
            return
        try:
            self._send.send_nowait(envelope)
        except trio.WouldBlock:
            self._room.reply(envelope.id, RequestError(code="overloaded", message="Too many requests at once"))

    def leave(self, reason: str, *, reply_to: int | None = None) -> None:
        """End the task; the first reason counts. ``reply_to``: answered when everything is closed."""
        if reply_to is not None:
            self.leave_requests.append(reply_to)
        if self._reason is None:
            self._reason = reason
        self._scope.cancel()

    def consumer_closed(self, consumer_id: str) -> None:
        """Its producer closed, which closes it: forget it."""
        self._consumers.pop(consumer_id, None)

    def fault(self, error: Exception) -> None:
        """Handling a packet for this peer hit a bug: drop the peer. Synchronous, from the hot path."""
        if self._reason == FAULT:
            return  # known, and being dealt with
        if self._reason is not None or self._nursery is None:
            logger.error("Peer %s of room %s, which leaves", self.user_id, self._room.id, exc_info=error)
            return
        self._reason = FAULT
        self._nursery.start_soon(_raise, error)

    async def run(self) -> None:
        """Handle requests one after the other until the peer leaves; then free everything."""
        try:
            with self._scope:
                try:
                    async with trio.open_nursery() as nursery:
                        self._nursery = nursery
                        async for envelope in self._receive:
                            self._current = envelope
                            self._room.reply(envelope.id, await self._handle(envelope.request))
                            self._current = None
                            del envelope  # or the request stays until the next one: a browser's capabilities are 50 KiB
                finally:
                    self._nursery = None
                    if self._reason is None:
                        self._reason = ROOM_CLOSED  # unless a fault is the reason: see below
                    self._close_everything()
        except* Exception as faults:
            logger.error("Peer %s of room %s dropped", self.user_id, self._room.id, exc_info=faults)
            self._reason = FAULT
        finally:
            self._end()

    def _end(self) -> None:
        # Only our own plain state here: this is outside the fault boundary.
        reason = self._reason or ROOM_CLOSED
        if self._current is not None:
            internal = RequestError(code="internal", message=FAULT)
            self._room.reply(self._current.id, internal if reason == FAULT else _gone())
        self._send.close()
        while True:
            try:
                self._room.reply(self._receive.receive_nowait().id, _gone())
            except (trio.WouldBlock, trio.EndOfChannel):
                break
        self._receive.close()
        self._room.forget(self, reason)

    def _close_everything(self) -> None:
        actions = [partial(self._close_transport, direction) for direction in tuple(self._transports)]
        _each(actions)

    # Requests. What a client got wrong is a RequestError or a MediaError; any other exception is a bug.

    async def _handle(self, request: Request) -> Reply:
        try:
            return await _HANDLERS[type(request)](self, request)
        except MediaError as error:
            return RequestError(code=error.code, message=str(error))
        except _RefusedError as error:
            return error.reply

    async def _get_router_rtp_capabilities(self, request: GetRouterRtpCapabilities) -> Reply:
        return RouterCapabilities(rtp_capabilities=self._room.router.rtp_capabilities)

    async def _create_producer_transport(self, request: CreateProducerTransport) -> Reply:
        return await self._create_transport("producer")

    async def _create_consumer_transport(self, request: CreateConsumerTransport) -> Reply:
        return await self._create_transport("consumer")

    async def _connect_producer_transport(self, request: ConnectProducerTransport) -> Reply:
        return self._connect_transport("producer", request.dtls_parameters)

    async def _connect_consumer_transport(self, request: ConnectConsumerTransport) -> Reply:
        return self._connect_transport("consumer", request.dtls_parameters)

    async def _restart_ice(self, request: RestartIce) -> Reply:
        return IceRestarted(ice_parameters=self._transport_of(request.transport_id).restart_ice())

    async def _produce(self, request: Produce) -> Reply:
        transport = self._transport("producer")
        app_data = request.app_data or {}
        replaced = [
            producer
            for producer in self._producers.values()
            if producer.kind == request.kind and _source(producer.app_data) == _source(app_data)
        ]
        if len(self._producers) - len(replaced) >= self._room.limits.producers:
            raise _RefusedError("too-many-producers", "You have too many producers in this room")
        # What is refused leaves the older ones alone.
        producer = self._room.router.produce(
            transport, request.kind, request.rtp_parameters, app_data, replacing=replaced
        )
        for old in replaced:
            self._close_producer(old, tell_owner=True)
        producer.on_scores_change = partial(self._scores_changed, producer)
        producer.on_wanted_change = partial(self._layers_wanted, producer)
        self._producers[producer.id] = producer
        self._room.add_producer(self, producer)
        self._room.tell_others(
            self,
            NewProducer(
                room_id=self._room.id,
                user_id=self.user_id,
                producer_id=producer.id,
                kind=producer.kind,
                app_data=app_data or None,
            ),
        )
        self._room.producers_changed()
        return Produced(id=producer.id)

    async def _stop_producing(self, request: StopProducing) -> Reply:
        self._close_producers(tell_owner=False)
        return ProducingStopped()

    async def _list_producers(self, request: ListProducers) -> Reply:
        return ProducerList(producers=self._room.list_producers(but=self))

    async def _consume(self, request: Consume) -> Reply:
        transport = self._transport("consumer")
        producer = self._room.find_producer(request.producer_id)
        if producer is None:
            raise _no_producer()
        if len(self._consumers) >= self._room.limits.consumers:
            raise _RefusedError("too-many-consumers", "You have too many consumers in this room")
        layers = request.preferred_layers
        consumer = self._room.router.consume(
            transport,
            producer,
            request.rtp_capabilities,
            paused=bool(request.paused),
            preferred_layers=None if layers is None else _layers(layers),
        )
        consumer.on_layers_change = partial(self._layers_changed, consumer.id)
        consumer.on_score_change = partial(self._score_changed, consumer)
        self._consumers[consumer.id] = consumer
        self._room.add_consumer(self, consumer.id, producer.id)
        return Consumed(
            id=consumer.id,
            producer_id=producer.id,
            kind=consumer.kind,
            rtp_parameters=consumer.rtp_parameters,
            type=consumer.type,
            paused=consumer.paused,
            producer_paused=consumer.producer_paused,
            app_data=producer.app_data or None,
        )

    async def _close_producer_request(self, request: CloseProducer) -> Reply:
        self._close_producer(self._producer(request.producer_id), tell_owner=False)
        self._room.producers_changed()
        return Closed()

    async def _pause_producer(self, request: PauseProducer) -> Reply:
        producer = self._producer(request.producer_id)
        if not producer.paused:
            producer.pause()
            self._room.speakers.refresh()
            event = ProducerPaused(room_id=self._room.id, producer_id=producer.id, user_id=self.user_id)
            self._room.tell_others(self, event)
        return Paused()

    async def _resume_producer(self, request: ResumeProducer) -> Reply:
        producer = self._producer(request.producer_id)
        if producer.paused:
            producer.resume()
            event = ProducerResumed(room_id=self._room.id, producer_id=producer.id, user_id=self.user_id)
            self._room.tell_others(self, event)
        return Resumed()

    async def _close_consumer_request(self, request: CloseConsumer) -> Reply:
        self._close_consumer(self._consumer(request.consumer_id))
        return Closed()

    async def _pause_consumer(self, request: PauseConsumer) -> Reply:
        self._consumer(request.consumer_id).pause()
        return Paused()

    async def _resume_consumer(self, request: ResumeConsumer) -> Reply:
        self._consumer(request.consumer_id).resume()
        return Resumed()

    async def _request_key_frame(self, request: RequestKeyFrame) -> Reply:
        # Like a PLI: a stranger must not have keyframes made as fast as they can ask.
        self._consumer(request.consumer_id).request_key_frame(urgent=False)
        return KeyFrameRequested()

    async def _set_preferred_layers(self, request: SetPreferredLayers) -> Reply:
        layers = self._consumer(request.consumer_id).set_preferred_layers(_layers(request))
        if layers is None:
            return PreferredLayersSet()
        return PreferredLayersSet(spatial_layer=layers.spatial, temporal_layer=layers.temporal)

    async def _set_consumer_priority(self, request: SetConsumerPriority) -> Reply:
        self._consumer(request.consumer_id).priority = request.priority
        return PrioritySet(priority=request.priority)

    async def _set_max_incoming_bitrate(self, request: SetMaxIncomingBitrate) -> Reply:
        self._transport("producer").session.set_max_incoming_bitrate(request.bitrate or None)
        return MaxIncomingBitrateSet(bitrate=request.bitrate)

    def _layers_wanted(self, producer: Producer, layer: int | None) -> None:
        event = LayersWanted(room_id=self._room.id, producer_id=producer.id, spatial_layer=layer)
        self._room.tell(self, event)

    def _scores_changed(self, producer: Producer) -> None:
        scores = tuple(
            EncodingScore(
                encoding_idx=index,
                ssrc=stream.ssrc,
                score=stream.score.value,
                rid=producer.rtp_parameters.encodings[index].rid,
            )
            for index, stream in sorted(producer.streams.items())
        )
        self._room.tell(self, Score(room_id=self._room.id, producer_id=producer.id, score=scores))

    def _score_changed(self, consumer: Consumer) -> None:
        streams = consumer.producer.streams
        score = ConsumerScore(
            score=consumer.score.value,
            producer_score=consumer.stream.score.value if consumer.stream is not None else 0,
            producer_scores=tuple(streams[index].score.value for index in sorted(streams)),
        )
        self._room.tell(self, Score(room_id=self._room.id, consumer_id=consumer.id, score=score))

    def _layers_changed(self, consumer_id: str, layers: Layers | None) -> None:
        spatial, temporal = layers or (None, None)
        event = LayersChanged(
            room_id=self._room.id, consumer_id=consumer_id, spatial_layer=spatial, temporal_layer=temporal
        )
        self._room.tell(self, event)

    async def _get_stats(self, request: GetStats) -> Reply:
        """Of the user's own only: a consumer's tell all that one may know about its producer, without addresses."""
        transports = tuple(self._transports.values())
        producers = tuple(self._producers.values())
        consumers = tuple(self._consumers.values())
        named = [each for each in (request.transport_id, request.producer_id, request.consumer_id) if each is not None]
        if len(named) > 1:
            raise _RefusedError("invalid-payload", "getStats: name one transport, producer or consumer, or none")
        if named:
            transports, producers, consumers = (), (), ()
        if request.transport_id is not None:
            transports = (self._transport_of(request.transport_id),)
        elif request.producer_id is not None:
            producers = (self._producer(request.producer_id),)
        elif request.consumer_id is not None:
            consumers = (self._consumer(request.consumer_id),)
        now = trio.current_time()
        self._pay_for_stats(len(transports) + sum(len(each.streams) for each in producers) + 2 * len(consumers), now)
        timestamp = int(time.time() * 1000)
        stats: list[Stats] = [transport_stats(each, now, timestamp) for each in transports]
        for producer in producers:
            stats += producer_stats(producer, now, timestamp)
        for consumer in consumers:
            stats += consumer_stats(consumer, now, timestamp)
        return StatsRead(stats=tuple(stats))

    def _pay_for_stats(self, count: int, now: float) -> None:
        earned = (now - self._stats_credit_at) * _STATS_PER_SECOND
        self._stats_credit = min(_STATS_BURST, self._stats_credit + earned)
        self._stats_credit_at = now
        if count > self._stats_credit:
            raise _RefusedError("too-many-stats", "Too many statistics at once: ask less often, or for one at a time")
        self._stats_credit -= count

    # Transports

    async def _create_transport(self, direction: Direction) -> Reply:
        self._close_transport(direction)
        transport = self._room.media.transport(self._room.router)
        transport.on_fault = self.fault
        self._transports[direction] = transport
        assert self._nursery is not None
        await self._nursery.start(self._run_transport, direction, transport)
        self._room.transport_created()
        turn = self._room.media.turn
        return TransportCreated(
            id=transport.id,
            ice_parameters=transport.ice_parameters,
            ice_candidates=tuple(transport.ice_candidates),
            dtls_parameters=transport.dtls_parameters,
            ice_servers=None if turn is None else turn.ice_servers(self.user_id, time.time()),
        )

    async def _run_transport(
        self, direction: Direction, transport: WebRtcTransport, *, task_status: trio.TaskStatus[None]
    ) -> None:
        await transport.run(task_status=task_status)
        if self._transports.get(direction) is not transport:
            return  # we closed it, and all is done
        # It failed, was lost, or the other side closed it.
        reason = transport.failure or "the connection was closed by the other side"
        self._close_transport(direction)
        self._room.tell(
            self,
            TransportClosed(room_id=self._room.id, transport_id=transport.id, direction=direction, reason=reason),
        )

    def _connect_transport(self, direction: Direction, dtls_parameters: DtlsParameters) -> Reply:
        transport = self._transport(direction)
        transport.connect(dtls_parameters)
        self._room.transport_starts(transport)
        return TransportConnected()

    def _transport(self, direction: Direction) -> WebRtcTransport:
        transport = self._transports.get(direction)
        if transport is None:
            raise _RefusedError("transport-not-found", f"You have no {direction} transport in this room")
        return transport

    def _transport_of(self, transport_id: str) -> WebRtcTransport:
        for transport in self._transports.values():
            if transport.id == transport_id:
                return transport
        raise _RefusedError("transport-not-found", "You have no such transport in this room")

    def _close_transport(self, direction: Direction) -> None:
        """Close the transport, if there is one, and what runs on it."""
        transport = self._transports.pop(direction, None)
        if transport is None:
            return
        close_streams: Callable[[], None] = self._close_consumers
        if direction == "producer":
            close_streams = partial(self._close_producers, tell_owner=True)
        _each((close_streams, transport.close, partial(self._room.transport_ends, transport)))

    # Producers and consumers

    def _producer(self, producer_id: str) -> Producer:
        producer = self._producers.get(producer_id)
        if producer is None:
            raise _no_producer()
        return producer

    def _consumer(self, consumer_id: str) -> Consumer:
        consumer = self._consumers.get(consumer_id)
        if consumer is None:
            raise _RefusedError("consumer-not-found", "You have no such consumer in this room")
        return consumer

    def _close_producer(self, producer: Producer, *, tell_owner: bool) -> None:
        del self._producers[producer.id]
        self._room.remove_producer(producer.id, tell_owner=tell_owner)
        producer.close()

    def _close_producers(self, *, tell_owner: bool) -> None:
        producers = tuple(self._producers.values())
        try:
            _each(partial(self._close_producer, producer, tell_owner=tell_owner) for producer in producers)
        finally:
            if producers:
                self._room.producers_changed()

    def _close_consumer(self, consumer: Consumer) -> None:
        del self._consumers[consumer.id]
        self._room.remove_consumer(consumer.id, consumer.producer.id)
        consumer.close()

    def _close_consumers(self) -> None:
        _each(partial(self._close_consumer, consumer) for consumer in tuple(self._consumers.values()))


# The room itself answers the requests that are missing here: createRoom, joinRoom, leaveRoom.
_HANDLERS: dict[type[Request], Callable[..., Awaitable[Reply]]] = {
    GetRouterRtpCapabilities: Peer._get_router_rtp_capabilities,
    CreateProducerTransport: Peer._create_producer_transport,
    CreateConsumerTransport: Peer._create_consumer_transport,
    ConnectProducerTransport: Peer._connect_producer_transport,
    ConnectConsumerTransport: Peer._connect_consumer_transport,
    RestartIce: Peer._restart_ice,
    Produce: Peer._produce,
    StopProducing: Peer._stop_producing,
    ListProducers: Peer._list_producers,
    Consume: Peer._consume,
    CloseProducer: Peer._close_producer_request,
    PauseProducer: Peer._pause_producer,
    ResumeProducer: Peer._resume_producer,
    CloseConsumer: Peer._close_consumer_request,
    PauseConsumer: Peer._pause_consumer,
    ResumeConsumer: Peer._resume_consumer,
    RequestKeyFrame: Peer._request_key_frame,
    SetPreferredLayers: Peer._set_preferred_layers,
    SetConsumerPriority: Peer._set_consumer_priority,
    SetMaxIncomingBitrate: Peer._set_max_incoming_bitrate,
    GetStats: Peer._get_stats,
}


class _RefusedError(Exception):
    """A request that cannot be carried out, with its reply."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.reply = RequestError(code=code, message=message)


def _no_producer() -> _RefusedError:
    return _RefusedError("producer-not-found", "There is no such producer in this room")


def _layers(wanted: SetPreferredLayers | PreferredLayers) -> Layers:
    temporal = EVERYTHING.temporal if wanted.temporal_layer is None else wanted.temporal_layer
    return Layers(wanted.spatial_layer, temporal)


def _gone() -> RequestError:
    return RequestError(code="not-in-room", message="You are not in this room")


def _source(app_data: dict[str, object]) -> object:
    source = app_data.get("source")
    return source if isinstance(source, str) else None


async def _raise(error: Exception) -> None:
    raise error


def _each(actions: Iterable[Callable[[], None]]) -> None:
    """Call all of them, even where one of them hits a bug; the bugs come out together."""
    faults: list[Exception] = []
    for action in actions:
        try:
            action()
        except Exception as fault:
            faults.append(fault)
    if faults:
        raise ExceptionGroup("closing failed", faults)
