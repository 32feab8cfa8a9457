"""One user's copy of one producer: which of its packets go out, and as what.

Made by :meth:`trio_sfu.media.router.Router.consume`. Numbers go on without a break whatever the source does: a
pause, another stream of the same producer, or a restart of the sender shift the offsets between the source's and
the consumer's sequence numbers and timestamps, and a retransmission finds its way back through them.
"""

from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Final

from trio_sfu.media.capabilities import (
    ABS_SEND_TIME_URI,
    MID_URI,
    TRANSPORT_CC_URI,
)
from trio_sfu.media.frame_mark import EVERYTHING, Layers
from trio_sfu.media.layer_view import LayerView, may_cross, next_step
from trio_sfu.media.layout import Stamp, shift_ids
from trio_sfu.media.outgoing_numbers import OutgoingNumbers
from trio_sfu.media.packet import Batch, Packet
from trio_sfu.media.parameters import MediaKind, RtpParameters
from trio_sfu.media.rates import Rates
from trio_sfu.media.retransmitter import Retransmitter
from trio_sfu.media.score import BEST, StreamScore
from trio_sfu.wire.rtcp import ReportBlock, SenderReport

if TYPE_CHECKING:
    from trio_sfu.media.incoming_stream import IncomingStream
    from trio_sfu.media.producer import Producer
    from trio_sfu.media.rtp_session import RtpSession

__all__ = ["Consumer"]

# A consumer that has just begun has nothing to show: its requests for a keyframe are answered at once.
_FRESH_SECONDS: Final = 3.0
# A browser drops what arrives before it has taken in the answer to `consume`. Where the transport is connected
# already and the client has not asked for a paused consumer, that answer gets this much of a start.
_ANSWER_SECONDS: Final = 0.05
# A keyframe older than this could be too old to begin with by the time that the consumer can: another one is asked for.
_YOUNG_KEYFRAME_SECONDS: Final = 0.2
# A receiver that asks for a keyframe this soon after its first packet has missed the one that it was sent.
_MISSED_SECONDS: Final = 0.5
_MAX_REPEATS: Final = 3
# How long a consumer that is to go over to other layers of its stream waits for packets that are missing.
_CROSS_SECONDS: Final = 0.25
_HASTEN_SECONDS: Final = 2.0


class Consumer:
    """Forwards one stream of ``producer`` at a time to the transport of ``session``."""

    __slots__ = (
        "_began_at",
        "_begin_at",
        "_ceiling",
        "_cross_by",
        "_ending",
        "_last_sent",
        "_layers",
        "_needs_keyframe",
        "_next_view",
        "_numbers",
        "_on_sent",
        "_pacer",
        "_repeats",
        "_report_sent",
        "_retransmitter",
        "_same_clock",
        "_session",
        "_stamp",
        "_started",
        "_synchronised",
        "_told",
        "_told_scores",
        "_traffic",
        "_view",
        "closed",
        "cname",
        "counted",
        "firs_received",
        "fraction_lost",
        "granted",
        "id",
        "kind",
        "limit",
        "nacks_received",
        "octets",
        "on_layers_change",
        "on_score_change",
        "packets",
        "packets_lost",
        "packets_nacked",
        "paused",
        "plis_received",
        "preferred",
        "priority",
        "producer",
        "rates",
        "round_trip",
        "rtp_parameters",
        "rtx_ssrc",
        "score",
        "ssrc",
        "stream",
        "target",
        "type",
    )

    def __init__(
        self,
        consumer_id: str,
        producer: "Producer",
        session: "RtpSession",
        rtp_parameters: RtpParameters,
        *,
        paused: bool,
        first_sequence_number: int,
        preferred_layers: Layers | None = None,
    ) -> None:
        # Given
        self.id: Final = consumer_id
        self.producer: Final = producer
        self.kind: Final[MediaKind] = producer.kind
        self.type: Final = producer.type
        self.rtp_parameters: Final = rtp_parameters
        self._session: Final = session
        self._traffic: Final = session.traffic
        # Derived
        encoding = rtp_parameters.encodings[0]
        assert encoding.ssrc is not None
        assert rtp_parameters.mid is not None
        ids = {extension.uri: extension.id for extension in rtp_parameters.header_extensions}
        self.ssrc: Final = encoding.ssrc
        self.rtx_ssrc: Final = encoding.rtx.ssrc if encoding.rtx else None
        self.cname: Final = rtp_parameters.rtcp.cname or ""
        self._stamp: Final = _stamp(self.ssrc, rtp_parameters.mid, ids)
        self.counted: Final = self._stamp.counts == 1
        """Whether its packets have transport-wide sequence numbers."""
        self._on_sent: Final = session.on_sent_of(self)
        bandwidth = session.bandwidth
        self._pacer: Final = bandwidth.pacer if bandwidth is not None and producer.has_keyframes else None
        self._needs_keyframe: Final = producer.has_keyframes
        # Owned
        self.on_layers_change: Callable[[Layers | None], None] | None = None
        """Told which layers of a producer that has several go out from now on, None: none do. Must not block."""
        self.preferred: Layers = preferred_layers or EVERYTHING
        self.limit: Layers | None = EVERYTHING
        """The highest layers that go out; None: nothing at all. See :meth:`set_limit` and :meth:`set_ceiling`."""
        self.granted: Layers | None = EVERYTHING
        """What there is bandwidth for, be there time for it or not."""
        self._ceiling: Layers | None = EVERYTHING  # by the server's load
        self._ending = False  # the rest of the frame that has begun goes out all the same
        self._told: Layers | None = Layers(0, 0) if producer.type == "simple" else None
        self.paused = paused
        self.closed = False
        self.stream: IncomingStream | None = None
        """The source whose packets go out."""
        self.target: IncomingStream | None = None
        """The source to go over to at its next keyframe; the same as ``stream`` when settled."""
        self._layers = EVERYTHING  # what is wanted of the target
        self._view: LayerView | None = None  # of the stream
        self._next_view: LayerView | None = None  # of the target, where that is another one
        self._cross_by: float | None = None  # there while it is to go over to other layers of the stream
        self._synchronised = False
        self._same_clock = False
        self._started = 0.0
        self._began_at = float("-inf")
        self._repeats = 0
        self._begin_at = session.now() + (_ANSWER_SECONDS if session.sink is not None else 0.0)
        self._numbers: Final = OutgoingNumbers(first_sequence_number)
        self._last_sent: float | None = None
        self._retransmitter: Final = (
            Retransmitter(session, _stamp(self.rtx_ssrc, rtp_parameters.mid, ids), rtp_parameters, self._on_sent)
            if self.rtx_ssrc is not None
            else None
        )
        self._report_sent: dict[int, float] = {}
        self.packets = 0
        self.octets = 0
        self.nacks_received = 0
        self.packets_nacked = 0
        self.plis_received = 0
        self.firs_received = 0
        self.round_trip: float | None = None
        self.packets_lost = 0
        self.fraction_lost = 0.0
        self.priority = 1
        """Of 1 to 255: who is served first where there is not bandwidth enough for all."""
        self.score: Final = StreamScore()
        self.on_score_change: Callable[[], None] | None = None
        """Told that :attr:`score` or that of the stream it is made from is another one. Must not block."""
        self._told_scores: tuple[int, int] = (BEST, BEST)
        self.rates: Final = Rates()
        """Of ``octets``."""

    # -- state ---

    @property
    def retransmitted(self) -> int:
        """How many packets have been sent again."""
        return self._retransmitter.retransmitted if self._retransmitter is not None else 0

    @property
    def repaired(self) -> int:
        """How many packets have been sent again for the first time."""
        return self._retransmitter.repaired if self._retransmitter is not None else 0

    @property
    def reports(self) -> bool:
        """Whether what it sends is known to the transport's bandwidth estimate, so that probes may be made of it."""
        return self._on_sent is not None

    @property
    def producer_paused(self) -> bool:
        """Whether the producer is paused."""
        return self.producer.paused

    @property
    def active(self) -> bool:
        """Whether packets are wanted: neither side is paused, and the transport is connected and can carry some."""
        return not (self.paused or self.producer.paused or self.closed or self.limit is None) and (
            self._session.sink is not None
        )

    @property
    def wanted(self) -> Layers:
        """The highest layers to get: what is preferred, as far as there is bandwidth for it."""
        limit = self.limit or Layers(0, 0)
        return Layers(min(self.preferred.spatial, limit.spatial), min(self.preferred.temporal, limit.temporal))

    def pause(self) -> None:
        """Send nothing until :meth:`resume`."""
        self.paused = True
        self._stop()

    def _stop(self) -> None:
        self._desynchronise()
        self._stop_crossing()
        self.tell_layers(self._session.now())

    def _desynchronise(self) -> None:
        """Send nothing until the next keyframe, nor what waits to be sent."""
        self._synchronised = self._ending = False
        self._session.hurry()
        if self._pacer is not None:
            self._pacer.drop(self)

    def resume(self) -> None:
        """Go on, with a keyframe."""
        if self.paused:
            self.paused = False
            self.producer.tell_wanted(self._session.now())
            self.restart(self._session.now())

    def restart(self, now: float) -> None:
        """Begin anew: after a resume on either side, or when the transport has just been connected."""
        self._desynchronise()
        self._started = now
        self._begin_at = now
        self._repeats = 0
        self._prepare(now)
        self.begin(now)

    @property
    def waiting(self) -> bool:
        """Whether packets are wanted, and none go out for want of a keyframe."""
        return not self._synchronised and self._needs_keyframe and self.active

    def begin(self, now: float) -> None:
        """Start with a keyframe that has come already, if it is recent; to be called until it no longer waits."""
        stream = self.target
        view = self._next_view or self._view
        if not self.waiting or stream is None or view is None or now < self._begin_at:
            return
        group = view.recent_group(now)
        if group is not None and not self._has_sent(stream, group.packets[0]):
            self.forward(view, group, now)
        elif stream.keyframes is not None and not stream.keyframes.waiting:
            self.producer.request_keyframe(stream, now, urgent=True)

    def _has_sent(self, stream: "IncomingStream", packet: Packet) -> bool:
        """Whether ``packet`` is from before what has gone out last: timestamps must not go back."""
        if stream is not self.stream or not self._same_clock:
            return False
        return self._numbers.is_past(packet)

    def _prepare(self, now: float) -> None:
        """See to it that there is a keyframe when the consumer begins, be it still paused or not connected."""
        stream = self.target
        if stream is None or stream.keyframes is None or self.producer.paused or self.limit is None:
            return
        if now - stream.keyframes.last_keyframe > _YOUNG_KEYFRAME_SECONDS:
            self.producer.request_keyframe(stream, now, urgent=not self._shows_something(now))

    def _shows_something(self, now: float) -> bool:
        """Whether a stream goes out: what the next one's keyframe is asked for is a matter of taste, not of need."""
        return self._synchronised and self.stream is not None and self.stream.is_live(now)

    def request_key_frame(self, *, urgent: bool = True) -> None:
        """Ask the producer for a keyframe; for a source without any this does nothing."""
        target = self.target
        if target is not None:
            self.producer.request_keyframe(target, self._session.now(), urgent=urgent)

    def bind(self, stream: "IncomingStream", layers: Layers = EVERYTHING) -> None:
        """Go over to ``layers`` of ``stream``: to another stream at its next keyframe where it has any, to others of
        the same as soon as these allow."""
        if self.target is stream and self._layers == layers and not self._stale_view(layers):
            return
        now = self._session.now()
        self._layers = layers
        if self.target is not stream:
            self._stop_crossing()
            self._drop_next_view()
            self.target = stream
        if self.stream is None:
            self.stream = stream
            self._started = now
        if stream is not self.stream:
            self._drop_next_view()
            self._next_view = stream.view(layers)
            self._next_view.attach(self)
            self._prepare(now)
        elif not self._synchronised:
            self._move_to(stream.view(layers))
            self._prepare(now)
        else:
            self._start_crossing(stream, now)

    def _stale_view(self, layers: Layers) -> bool:
        """Whether the stream has shown more layers than when its view of everything was chosen for ``layers``."""
        view = self._next_view or self._view
        return view is not None and view.is_whole and not layers.hold(view.stream.top)

    def _move_to(self, view: LayerView) -> None:
        """Get the packets of ``view`` instead of those of the one before."""
        before, self._view = self._view, view
        view.attach(self)
        if before is not None and before is not view:
            _give_up(before, self)

    def _drop_next_view(self) -> None:
        if self._next_view is not None:
            _give_up(self._next_view, self)
            self._next_view = None

    @property
    def sending_since(self) -> float:
        """When it began, or began anew: the time of its first packet; infinity before there was one."""
        return self._began_at if self.packets else inf

    # -- layers ---

    def _current_layers(self, view: LayerView) -> Layers:
        """What goes out by ``view``, of the layers that there are."""
        top = view.stream.top
        return Layers(min(view.layers.spatial, top.spatial), min(view.layers.temporal, top.temporal))

    def _step(self) -> tuple[Layers, Layers] | None:
        """What goes out of the stream now, and what is to go out next; None where that is the same."""
        stream, view = self.stream, self._view
        assert stream is not None
        assert view is not None
        current = self._current_layers(view)
        top = stream.top
        wanted = Layers(min(self._layers.spatial, top.spatial), min(self._layers.temporal, top.temporal))
        return None if current == wanted else (current, next_step(current, wanted))

    def _start_crossing(self, stream: "IncomingStream", now: float) -> None:
        step = self._step()
        if step is None:
            self._stop_crossing()
            return
        if self._cross_by is None:
            self._cross_by = now + _CROSS_SECONDS
        stream.start_crossing(self)
        if step[1].spatial > step[0].spatial:
            self.producer.request_keyframe(stream, now, urgent=False)

    def _stop_crossing(self) -> None:
        if self._cross_by is not None and self.stream is not None:
            self._cross_by = None
            self.stream.stop_crossing(self)

    def crosses(self, packet: Packet, now: float, *, complete: bool) -> bool:
        """Whether to go over to other layers of the stream with ``packet``, the next to come.

        ``complete``: nothing that was sent before it is missing. See :meth:`IncomingStream.start_crossing`.
        """
        step = self._step()
        if step is None or self._cross_by is None or not self._synchronised:
            return False
        return (complete or packet.keyframe or now >= self._cross_by) and may_cross(packet, *step)

    def cross(self, packet: Packet, now: float) -> None:
        """Go over: ``packet`` and what comes after it comes by another view."""
        self._flush(now)
        step, stream = self._step(), self.stream
        assert step is not None
        assert stream is not None
        before, view = self._view, stream.view(step[1], from_now=True)
        assert before is not None
        # What the old view has before this packet, and did not come in time to go out, keeps its numbers.
        self._numbers.keep_missing(*before.entry(packet))
        number, picture_id = view.entry(packet)
        self._move_to(view)
        self._begin_stretch(view, number, picture_id if view.closes_picture_ids else None)
        self._cross_by = None
        if self._step() is None:
            stream.stop_crossing(self)
        else:
            self._start_crossing(stream, now)
        self.tell_layers(now)

    def hasten(self, now: float) -> None:
        """Ask for a keyframe where the stream has not let the consumer go up for long; to be called once a second."""
        step = self._step() if self._cross_by is not None else None
        if step is not None and self._cross_by is not None and now - self._cross_by > _HASTEN_SECONDS:
            current, following = step
            if not current.hold(following) and self.stream is not None:
                self.producer.request_keyframe(self.stream, now, urgent=False)

    def set_preferred_layers(self, layers: Layers) -> Layers | None:
        """Want ``layers`` of the producer from now on, or the best below them; what is too high means the highest.

        Returns the layers that are preferred now; None for a producer of one stream without layers, where this does
        nothing.
        """
        if self.producer.type == "simple":
            return None
        self.preferred = layers
        self.producer.choose_for(self, self._session.now())
        self.producer.tell_wanted(self._session.now())
        top = self.producer.top
        temporal = max([top.temporal, *(stream.top.temporal for stream in self.producer.streams.values())])
        return Layers(min(layers.spatial, top.spatial), min(layers.temporal, temporal))

    def set_limit(self, limit: Layers | None, *, at_once: bool = False) -> None:
        """Let nothing above ``limit`` go out, for want of bandwidth; None: nothing at all.

        ``at_once``: the path is full, so another stream than the one to go over to is not sent until it is there.
        """
        self.granted = limit
        self._apply(_lower(limit, self._ceiling), at_once=at_once)

    def set_ceiling(self, ceiling: Layers | None) -> None:
        """Let nothing above ``ceiling`` go out either, for want of the server's time; None: nothing at all.

        The frame that is going out is finished.
        """
        if ceiling == self._ceiling:
            return
        self._ceiling = ceiling
        begun = ceiling is None and self._synchronised
        if begun:
            self._flush(self._session.now())
        self._apply(_lower(self.granted, ceiling), at_once=False)
        self._ending = begun

    @property
    def is_silent(self) -> bool:
        """Whether nothing is to go out for want of bandwidth or time, nor the rest of a frame."""
        return self.limit is None and not self._ending

    def _apply(self, limit: Layers | None, *, at_once: bool) -> None:
        now = self._session.now()
        if limit == self.limit:
            if at_once:
                self._quit_old(now)
            return
        held, self.limit = self.limit is None, limit
        if limit is None:
            self._stop()
            return
        self.producer.choose_for(self, now, lasted=True)
        if at_once:
            self._quit_old(now)
        self.tell_layers(now)
        if held and not self.paused:
            self.restart(now)

    def _quit_old(self, now: float) -> None:
        """Send nothing of the old stream any more, where it is on its way to a lower one."""
        if self._next_view is None or self._view is None or not self._synchronised:
            return
        if self._next_view.stream.index < self._view.stream.index:
            self._desynchronise()
            _give_up(self._view, self)
            if self._retransmitter is not None:
                self._retransmitter.forget()  # what is missing would come too late to be of use
            self.begin(now)

    def options(self, now: float) -> list[tuple[Layers, int]]:
        """What may go out of what is preferred, and the bit rate of each, ascending; none while that is not known."""
        options = self.producer.options(now)
        return [option for option in options if self.preferred.hold(option[0])] or options[:1]

    def affordable(self, now: float) -> list[tuple[Layers, int]] | None:
        """:meth:`options` that there is bandwidth for; None where nothing is to go out whatever the server's load."""
        granted = self.granted
        if granted is None or self.paused or self.producer.paused:
            return None
        options = self.options(now)
        return [option for option in options if granted.hold(option[0])] or options[:1]

    def tell_layers(self, now: float) -> None:
        """Say which layers go out, where they are others than before; of a stream without any, whether it goes out."""
        if self.closed:
            return
        layers = None
        if self.producer.type == "simple":
            layers = Layers(0, 0) if self.limit is not None else None
        elif self.active and self.stream is not None and self.target is not None and self._view is not None:
            if self._shows_something(now):
                current = self._current_layers(self._view)
                spatial = self.stream.index if self.producer.type == "simulcast" else current.spatial
                layers = Layers(spatial, current.temporal)
            elif self.target.is_live(now):
                return  # on its way to another layer, which is told when it is there
        if layers != self._told and self.on_layers_change is not None:
            self._told = layers
            self.on_layers_change(layers)

    def on_restart(self, stream: "IncomingStream") -> None:
        """The sender of ``stream`` has begun anew: go on at its next keyframe, on another clock."""
        if stream is self.stream:
            self._desynchronise()
            self._same_clock = False
            self._stop_crossing()
            if self._retransmitter is not None:
                self._retransmitter.forget()

    def close(self) -> None:
        """Stop for good and say BYE; does nothing the second time."""
        if self.closed:
            return
        self.closed = True
        self._desynchronise()
        self._stop_crossing()
        for view in (self._view, self._next_view):
            if view is not None:
                view.detach(self)
        if self._retransmitter is not None:
            self._retransmitter.forget()
        self.producer.consumers.pop(self.id, None)
        self._session.remove_consumer(self)

    def fault(self, error: Exception) -> None:
        """A bug showed while handling this consumer: its transport's owner is told."""
        self._session.on_fault(error)

    # -- forwarding ---

    def forward(self, view: LayerView, batch: Batch, now: float) -> None:
        """Send the packets of ``batch`` that came by ``view``."""
        if self._session.sink is None or self.paused or self.limit is None:
            rest = self._rest_of_frame(view, batch)
            if rest is None:
                return
            batch = rest
        elif view is not self._view or not self._synchronised:
            begun = self._begin_with(view, batch, now)
            if begun is None:
                return
            batch = begun
        numbers = self._numbers
        if numbers.floor is not None:
            above = numbers.above_floor(batch)
            if above is None:
                return
            batch = above
        pacer = self._pacer
        if pacer is not None and pacer.rate is not None:
            pacer.send(self, batch, now)
            self._session.hurry()
        else:
            self.send(batch, now)

    def _flush(self, now: float) -> None:
        """Other packets come next than those that wait: these go out before."""
        if self._pacer is not None:
            self._pacer.flush(self, now)

    def send(self, batch: Batch, now: float) -> None:
        """Send what :meth:`forward` has let through, under the consumer's own numbers."""
        sink = self._session.sink
        if sink is None:
            return
        # By position, and each value looked up once: this runs for every consumer of every batch.
        layout = batch.layout(sink.overhead)
        start = sink.reserve(layout[0])
        numbers = self._numbers
        first_sequence = sink.transport_sequence
        sink.transport_sequence = self._stamp.write(
            sink.arena, start, layout, numbers.sequence_offset, numbers.timestamp_offset, first_sequence, now
        )
        if numbers.picture_offset or numbers.tl0_offset:
            shift_ids(sink.arena, start, layout, batch.packets, numbers.picture_offset, numbers.tl0_offset)
        sink.send_rtp(start, batch.sizes, batch.runs)
        octets = batch.octets
        if self._on_sent is not None:
            self._on_sent(first_sequence + 1 & 0xFFFF, octets, batch.count, now)
        self.packets += batch.count
        self.octets += batch.payload_octets
        self._traffic.rtp_sent += octets
        numbers.advance(batch)
        self._last_sent = now

    def _rest_of_frame(self, view: LayerView, batch: Batch) -> Batch | None:
        """What goes out of ``batch`` though nothing is to go out any more, see :meth:`set_ceiling`."""
        if not self._ending or view is not self._view:
            return None
        rest = [packet for packet in batch.packets if self._numbers.is_past(packet)]
        self._ending = len(rest) == batch.count
        return Batch(rest) if rest else None

    def _begin_with(self, view: LayerView, batch: Batch, now: float) -> Batch | None:
        """Where the consumer can begin, or go over to another stream, within ``batch``: the rest of it."""
        if view is not (self._next_view or self._view) or now < self._begin_at:
            return None
        stream = view.stream
        index = batch.first_keyframe if self._needs_keyframe else 0
        if index is None:
            # The request may have been given up while the source was silent.
            self.producer.request_keyframe(stream, now, urgent=not self._shows_something(now))
            return None
        self._flush(now)
        before = self.stream
        if view is self._next_view:
            self._next_view = None
            self._move_to(view)
        knew_clock = self._same_clock
        self.stream = stream
        self._synchronised = self._same_clock = True
        if self._repeats == 0:
            self._began_at = now
        first = batch.packets[index]
        if self._last_sent is not None and not (before is stream and knew_clock):
            self._numbers.go_on_from(before if knew_clock else None, stream, first.timestamp, now - self._last_sent)
        ids = first.mark.ids if first.mark is not None else None
        if ids is not None and first.keyframe:
            self._numbers.go_on_with_keyframe(ids)
        self._begin_stretch(view, first.sequence_number, ids.picture_id if ids is not None else None)
        self.tell_layers(now)
        if self._step() is not None:
            self._start_crossing(stream, now)
        return batch  # what came before the keyframe and belongs after it, too: the rest is below the floor

    def _begin_stretch(self, view: LayerView, number: int, picture_id: int | None) -> None:
        """Let the packet ``number`` of ``view`` be the next one, and the picture of that id, where it is given."""
        stretch = self._numbers.begin(view, number, picture_id)
        if self._retransmitter is not None:
            self._retransmitter.begin_stretch(stretch)

    # -- RTCP from the consuming side ---

    def on_nack(self, lost: tuple[int, ...], now: float) -> None:
        """Send again what the receiver misses, as RTX (RFC 4588).

        Without RTX nothing can be sent again: under the old number, with other header extensions, it would be other
        bytes under the same SRTP nonce. Such a receiver asks for a keyframe.
        """
        self.nacks_received += 1
        self.packets_nacked += len(lost)
        silent = self.paused or self.limit is None or (self.kind == "video" and self._session.overload.strained)
        if self._retransmitter is not None and self._session.sink is not None and not silent:
            self._retransmitter.answer(lost, self._numbers.last, self.round_trip, now)

    def probe(self, octets: int, now: float) -> int:
        """Send about so much again to probe the path, see :meth:`Retransmitter.probe`; returns what has been sent."""
        overload = self._session.overload
        if self._retransmitter is None or not self.active or not self._synchronised:
            return 0
        if overload.strained or overload.overloaded:
            return 0
        return self._retransmitter.probe(octets, self._numbers.last, now)

    def on_keyframe_request(self, now: float) -> None:
        """The receiver's PLI or FIR.

        One that has only just begun was not ready for its first keyframe (its answer to `consume` took longer). It
        has decoded nothing, so it can be given that keyframe again, under new numbers: the sender would make no
        other one so soon.
        """
        if not self.active:
            return
        stream = self.stream
        if (
            stream is not None
            and stream is self.target
            and self._synchronised
            and now - self._began_at < _MISSED_SECONDS
        ):
            view = self._view
            group = view.recent_group(now) if view is not None and self._repeats < _MAX_REPEATS else None
            if view is not None and group is not None:
                self._repeats += 1
                self._desynchronise()
                self.forward(view, group, now)
                return
        self.request_key_frame(urgent=now - self._started < _FRESH_SECONDS)

    def on_report(self, block: ReportBlock, now: float) -> None:
        """The receiver's view of this stream."""
        self.packets_lost = block.packets_lost
        self.fraction_lost = block.fraction_lost / 256
        sent = self._report_sent.get(block.lsr)
        if sent is not None:
            self.round_trip = max(0.0, now - sent - block.dlsr / 65536)

    def update_score(self) -> None:
        """To be called once a second or two, after the producer's."""
        if not self.active or self.stream is None or self._last_sent is None:
            return
        self.score.update(self.packets, max(0, self.packets_lost), self.repaired, self.retransmitted)
        scores = (self.score.value, self.stream.score.value)
        if scores != self._told_scores:
            self._told_scores = scores
            if self.on_score_change is not None:
                self.on_score_change()

    def sender_report(self, now: float, ntp_now: float) -> SenderReport | None:
        """Our SR, on the producer's own clock so that its audio and video stay together (RFC 3550, 6.4.1).

        ``ntp_now``: seconds since 1900. None before there is anything to say.
        """
        stream = self.stream
        if stream is None or self._last_sent is None or not self._synchronised:
            return None
        if stream.sender_report is not None:
            report, arrived = stream.sender_report
            elapsed = now - arrived
            ntp = report.ntp_time + int(elapsed * 4294967296)
            timestamp = report.rtp_timestamp + round(elapsed * stream.clock_rate) + self._numbers.timestamp_offset
        elif now - self._started < 2.0:
            return None  # the producer's first report is better than our guess
        else:
            ntp = int(ntp_now * 4294967296)
            timestamp = self._numbers.last_timestamp + round((now - self._last_sent) * stream.clock_rate)
        ntp &= 0xFFFFFFFFFFFFFFFF
        self._report_sent[ntp >> 16 & 0xFFFFFFFF] = now
        while len(self._report_sent) > 8:
            del self._report_sent[next(iter(self._report_sent))]
        return SenderReport(self.ssrc, ntp, timestamp & 0xFFFFFFFF, self.packets & 0xFFFFFFFF, self.octets & 0xFFFFFFFF)


def _lower(one: Layers | None, other: Layers | None) -> Layers | None:
    """What both allow."""
    if one is None or other is None:
        return None
    return Layers(min(one.spatial, other.spatial), min(one.temporal, other.temporal))


def _stamp(ssrc: int, mid: str, ids: dict[str, int]) -> Stamp:
    return Stamp(
        ssrc=ssrc,
        mid=mid,
        mid_id=ids.get(MID_URI, 0),
        abs_send_time_id=ids.get(ABS_SEND_TIME_URI, 0),
        transport_cc_id=ids.get(TRANSPORT_CC_URI, 0),
    )


def _give_up(view: LayerView, consumer: Consumer) -> None:
    """Take no more packets of ``view``; where nobody takes any of its stream, no keyframe of it is wanted either."""
    view.detach(consumer)
    stream = view.stream
    if not stream.watched and stream.keyframes is not None:
        stream.keyframes.cancel()
