"""One RTP stream that a producer sends: checked, counted, repaired, and prepared for its consumers.

Owned by a :class:`~trio_sfu.media.producer.Producer`; packets come from the
:class:`~trio_sfu.media.rtp_session.RtpSession` of the transport that it arrives on.
"""

import struct
from collections import deque
from typing import TYPE_CHECKING, Final

from trio_sfu.media.capabilities import (
    ABS_SEND_TIME_ID,
    AUDIO_LEVEL_ID,
    DEPENDENCY_DESCRIPTOR_ID,
    MID_ID,
    REPAIRED_RID_ID,
    RID_ID,
    TRANSPORT_CC_ID,
)
from trio_sfu.media.frame_mark import EVERYTHING, Layers, MarkReader
from trio_sfu.media.keyframes import KeyFrameRequester
from trio_sfu.media.layer_rates import LayerRates
from trio_sfu.media.layer_view import LayerView
from trio_sfu.media.nack import NackGenerator
from trio_sfu.media.ortc import ProducerMapping
from trio_sfu.media.packet import Batch, Packet, make_packet
from trio_sfu.media.packet_cache import PacketCache
from trio_sfu.media.parameters import MediaKind, RtpCodecParameters
from trio_sfu.media.rates import Rates
from trio_sfu.media.reception import ReceptionStatistics
from trio_sfu.media.score import StreamScore
from trio_sfu.wire.dependency_descriptor import DependencyStructure
from trio_sfu.wire.keyframe import keyframe_test
from trio_sfu.wire.rtcp import ReportBlock, SenderReport
from trio_sfu.wire.rtp import RtpPacket, pack_extensions

if TYPE_CHECKING:
    from trio_sfu.media.consumer import Consumer

__all__ = ["IncomingStream"]

# Read here or written anew for each consumer's transport, so not passed on.
_HOP_BY_HOP: Final = frozenset((MID_ID, RID_ID, REPAIRED_RID_ID, ABS_SEND_TIME_ID, TRANSPORT_CC_ID))
# How long a packet can still be asked for; as mediasoup.
_CACHE_SECONDS: Final = {"audio": 1.0, "video": 2.0}
_LIVE_SECONDS: Final = 1.0
# Audio level octets that wait to be read: 1 s of packets of 20 ms. The oldest go first.
_MAX_AUDIO_LEVELS: Final = 50
_ORIGINAL_NUMBER: Final = struct.Struct("!H")
# RFC 3550, A.1: a larger step forward, or one further back, is a restart of the sender if the next packet follows it.
_MAX_STEP: Final = 3000
# What is later than that cannot go out any more: consumers' SRTP takes nothing from before its window of 1024 packets.
_MAX_LATE: Final = 1000
_NO_EXTENSIONS: Final = (False, b"")


class IncomingStream:
    """The stream with the media SSRC ``ssrc``, and with ``rtx_ssrc`` for what was asked for again (RFC 4588)."""

    __slots__ = (
        "_audio_level_id",
        "_audio_levels",
        "_crossing",
        "_descriptor_id",
        "_extension_ids",
        "_forwarded",
        "_keyframe_test",
        "_marks",
        "_media_type",
        "_newest",
        "_passed_ids",
        "_payload_type",
        "_pending",
        "_repair_types",
        "_restart_number",
        "_views",
        "_whole",
        "cache",
        "clock_rate",
        "discarded",
        "fir_count",
        "firs_sent",
        "index",
        "keyframes",
        "kind",
        "last_arrival",
        "layer_rates",
        "mime_type",
        "nack",
        "nacks_sent",
        "octets",
        "packets",
        "plis_sent",
        "rates",
        "reception",
        "repaired",
        "restarts",
        "retransmitted",
        "rtx_ssrc",
        "score",
        "sender_report",
        "ssrc",
        "top",
        "uses_fir",
        "uses_pli",
    )

    def __init__(
        self,
        kind: MediaKind,
        codec: RtpCodecParameters,
        mapping: ProducerMapping,
        *,
        ssrc: int,
        rtx_ssrc: int | None,
        index: int,
        simulcast: bool = False,
        layered: bool = False,
    ) -> None:
        """``simulcast``: consumers may go over to it from another stream; ``layered``: signalled as one of several
        spatial or temporal layers (SVC)."""
        # Given
        self.kind: Final = kind
        self.ssrc: Final = ssrc
        self.rtx_ssrc: int | None = rtx_ssrc
        self.index: Final = index
        """Place among the producer's encodings: the higher, the better the picture."""
        # One codec a stream, as in mediasoup: consumers may not have the producer's others.
        self._media_type: Final = codec.payload_type
        self._payload_type: Final = mapping.payload_types[codec.payload_type]
        self._repair_types: Final = frozenset(
            rtx for rtx, media in mapping.rtx_payload_types.items() if media == codec.payload_type
        )
        # As ortc.py has it in consumers' parameters.
        passes_descriptor = layered and codec.mime_type.lower() == "video/av1"
        self._extension_ids: Final = {
            theirs: ours
            for theirs, ours in mapping.header_extension_ids.items()
            if ours not in _HOP_BY_HOP and (ours != DEPENDENCY_DESCRIPTOR_ID or passes_descriptor)
        }
        self._passed_ids: Final = frozenset(self._extension_ids)
        self._descriptor_id: Final = next(
            (theirs for theirs, ours in mapping.header_extension_ids.items() if ours == DEPENDENCY_DESCRIPTOR_ID), 0
        )
        self._audio_level_id: Final = next(
            (theirs for theirs, ours in mapping.header_extension_ids.items() if ours == AUDIO_LEVEL_ID), 0
        )
        self.clock_rate: Final = codec.clock_rate
        self.mime_type: Final = codec.mime_type
        self._keyframe_test: Final = keyframe_test(codec.mime_type)
        feedback = {(each.type, each.parameter) for each in codec.rtcp_feedback}
        self.uses_pli: Final = ("nack", "pli") in feedback
        self.uses_fir: Final = ("ccm", "fir") in feedback
        self.fir_count = 0
        # Owned
        self.reception: Final = ReceptionStatistics(ssrc, codec.clock_rate)
        self.nack: Final = NackGenerator(kind) if ("nack", "") in feedback else None
        self.keyframes: Final = KeyFrameRequester() if self._keyframe_test else None
        self.cache: Final = PacketCache(_CACHE_SECONDS[kind])
        self.sender_report: tuple[SenderReport, float] | None = None
        """The producer's latest, and when it came."""
        self.last_arrival: float | None = None
        self.packets = 0
        self.octets = 0
        self.retransmitted = 0
        self.repaired = 0
        self.discarded = 0
        self.restarts = 0
        self.nacks_sent = 0
        self.plis_sent = 0
        self.firs_sent = 0
        self.rates: Final = Rates()
        """Of ``octets``."""
        self._audio_levels = deque[int](maxlen=_MAX_AUDIO_LEVELS) if self._audio_level_id else None
        self.score: Final = StreamScore()
        self.top = Layers(0, 0)
        """The highest layers that have been seen."""
        self.layer_rates: Final = LayerRates()
        self._marks: Final = MarkReader(codec.mime_type, always=simulcast) if kind == "video" else None
        self._whole: Final = LayerView(self, EVERYTHING, self.cache)
        self._views: list[LayerView] = [self._whole]
        self._crossing: tuple[Consumer, ...] = ()
        self._newest = 0
        self._forwarded = -1  # the newest of the batches before this one
        self._restart_number = -1  # the successor of a packet that was out of range
        self._pending: list[Packet] = []

    def is_live(self, now: float) -> bool:
        """Whether packets have come within the last second."""
        return self.last_arrival is not None and now - self.last_arrival < _LIVE_SECONDS

    # -- who watches ---

    def view(self, layers: Layers, *, from_now: bool = False) -> LayerView:
        """The view of ``layers``, for all who ask: of everything where the stream has no layers above those.

        ``from_now``: a new one begins with the next packet, else with the last keyframe that is kept.
        """
        if layers.hold(self.top):
            return self._whole
        for view in self._views:
            if view.layers == layers and view.consumers:
                return view
        view = LayerView(self, layers, PacketCache(_CACHE_SECONDS[self.kind]))
        if not from_now:
            view.take(self.cache.since_keyframe(newest=len(self._pending)))
        self._views.append(view)
        return view

    @property
    def watched(self) -> bool:
        """Whether anybody gets packets of this stream."""
        return any(view.consumers for view in self._views)

    @property
    def newest(self) -> int:
        """The highest sequence number that has come."""
        return self._newest

    @property
    def pending_count(self) -> int:
        """Packets of the current batch that have been kept and not forwarded yet."""
        return len(self._pending)

    @property
    def dependency_structure(self) -> DependencyStructure | None:
        """What dependency descriptors of the last keyframe said of the stream's layers."""
        return self._marks.structure if self._marks is not None else None

    def start_crossing(self, consumer: "Consumer") -> None:
        """Ask ``consumer`` at the beginning of each picture whether it goes over to another view of this stream."""
        if consumer not in self._crossing:
            self._crossing = (*self._crossing, consumer)

    def stop_crossing(self, consumer: "Consumer") -> None:
        """The opposite."""
        self._crossing = tuple(each for each in self._crossing if each is not consumer)

    # -- packets ---

    def receive(self, packet: RtpPacket, data: memoryview, now: float) -> tuple[int, ...]:
        """Take one media packet. Returns the sequence numbers to ask for again at once."""
        if packet.payload_type != self._media_type:
            self.discarded += 1
            return ()
        number = packet.sequence_number
        self.reception.on_packet(number, packet.timestamp, now)
        if self.last_arrival is None:
            self._newest = number - 1 & 0xFFFF
        step = number - self._newest & 0xFFFF
        if 0 < step < _MAX_STEP:
            self._newest = number
        elif 0 < step <= 0x10000 - _MAX_LATE:
            if number != self._restart_number:
                self._restart_number = number + 1 & 0xFFFF
                self.discarded += 1
                return ()
            self._restart(number)
        elif number in self.cache:
            self.discarded += 1  # a duplicate
            return ()
        return self._accept(number, packet, data[packet.payload_start : packet.payload_end], now)

    def _restart(self, number: int) -> None:
        """The sender has begun anew, with other numbers and timestamps. What it sent before cannot be told apart."""
        self.restarts += 1
        self._newest = number
        self.sender_report = None
        self._forget()

    def interrupt(self) -> None:
        """Nothing comes for some time, for want of the server's; nothing that came before is asked for any more."""
        self.last_arrival = None
        if self.nack is not None:
            self.nack.reset()
        if self.keyframes is not None:
            self.keyframes.cancel()
        self._forget()

    def _forget(self) -> None:
        """What comes next follows on nothing."""
        self._restart_number = -1
        self._pending.clear()
        self.cache.clear()
        for view in self._views:
            view.restart()
            for consumer in view.consumers:
                consumer.on_restart(self)

    def receive_repair(self, packet: RtpPacket, data: memoryview, now: float) -> None:
        """Take one RTX packet: the original's sequence number, then its payload (RFC 4588, section 4).

        One without payload is a bandwidth probe, and so is one that nobody waits for: senders repeat what they sent
        long ago to find out what the link carries. As in mediasoup, it must have been asked for.
        """
        start, end = packet.payload_start, packet.payload_end
        if end - start <= 2 or packet.payload_type not in self._repair_types or self.nack is None:
            return
        self.retransmitted += 1
        (number,) = _ORIGINAL_NUMBER.unpack_from(data, start)
        if number not in self.nack or self._newest - number & 0xFFFF >= _MAX_LATE or number in self.cache:
            return
        self.repaired += 1
        self._accept(number, packet, data[start + 2 : end], now)

    def _accept(self, number: int, packet: RtpPacket, payload: memoryview, now: float) -> tuple[int, ...]:
        test = self._keyframe_test
        keyframe = test is not None and test(payload)
        if keyframe and self.keyframes is not None:
            self.keyframes.on_keyframe(now)
        lost: tuple[int, ...] = ()
        if self.nack is not None:
            lost = self.nack.on_packet(number, now, keyframe=keyframe)
        self.packets += 1
        self.octets += len(payload)
        self.last_arrival = now
        if self._audio_levels is not None:
            place = packet.places.get(self._audio_level_id)
            if place is not None and (level := packet.block[place]):
                self._audio_levels.append(level[0])
        mark = None
        if self._marks is not None:
            place = packet.places.get(self._descriptor_id)
            mark = self._marks.read(payload, packet.marker, packet.block[place] if place is not None else None)
            if mark is not None:
                self._note_layers(mark.layers, len(payload))
        extensions = _NO_EXTENSIONS
        if not self._passed_ids.isdisjoint(packet.places):
            ids = self._extension_ids
            extensions = pack_extensions(
                [(ids[theirs], packet.block[place]) for theirs, place in packet.places.items() if theirs in ids]
            )
        prepared = make_packet(
            number,
            packet.timestamp,
            self._payload_type,
            packet.marker,
            extensions,
            payload,
            keyframe=keyframe,
            arrival=now,
            mark=mark,
        )
        self.cache.add(prepared)
        self._pending.append(prepared)
        return lost

    def take_audio_levels(self) -> tuple[int, ...]:
        """The octets of the audio level extension (RFC 6464, section 3) that have come since the last call."""
        if not self._audio_levels:
            return ()
        octets = tuple(self._audio_levels)
        self._audio_levels.clear()
        return octets

    def _note_layers(self, layers: Layers, octets: int) -> None:
        self.layer_rates.add(layers, octets)
        top = self.top
        if not top.hold(layers):
            self.top = Layers(max(top.spatial, layers.spatial), max(top.temporal, layers.temporal))

    def flush(self, now: float, *, forward: bool) -> None:
        """Forward what the batch brought to all consumers; with ``forward`` false it is dropped."""
        pending = self._pending
        self._pending = []
        self.cache.expire(now)
        if len(self._views) > 1:
            self._tidy(now)
        if not forward:
            for view in self._views:
                view.interrupt()
        if pending and forward:
            if self._crossing:
                self._forward_crossing(pending, now)
            elif len(self._views) > 1:
                self._forward(Batch(pending), now)
            elif self._whole.consumers:
                self._whole.forward(Batch(pending), now)
        self._forwarded = self._newest

    def _forward(self, batch: Batch, now: float) -> None:
        for view in self._views:
            if view.consumers:
                view.forward(batch, now)
            elif not view.is_whole:
                view.take_late(batch.packets)

    def _forward_crossing(self, packets: list[Packet], now: float) -> None:
        """Cut the batch where consumers go over to other views, so that each gets what is before from the old one.

        They do so with a packet that follows on the one before it and comes before all others, where nothing from
        before is missing, since it would have to be asked for; after some time all the same, see
        :meth:`Consumer.crosses`.
        """
        for view in self._views:
            view.release(now)
        begin = 0
        newest = self._forwarded
        for index, packet in enumerate(packets):
            number = packet.sequence_number
            follows = number == newest + 1 & 0xFFFF
            if number - newest & 0xFFFF < 0x8000:
                newest = number
            if not follows or any(each.sequence_number - number & 0xFFFF >= 0x8000 for each in packets[index + 1 :]):
                continue
            going = [
                consumer for consumer in self._crossing if consumer.crosses(packet, now, complete=self._is_complete)
            ]
            if going:
                if index > begin:
                    self._forward(Batch(packets[begin:index]), now)
                    begin = index
                for consumer in going:
                    consumer.cross(packet, now)
        self._forward(Batch(packets[begin:]), now)

    @property
    def _is_complete(self) -> bool:
        """Whether no packet is missing that may still come."""
        return self.nack is None or not self.nack.pending

    def _tidy(self, now: float) -> None:
        """Let go of views that nobody has, once there is nothing in them that may be asked for again."""
        for view in self._views[1:]:
            view.cache.expire(now)
        self._views = [view for view in self._views if view is self._whole or view.consumers or len(view.cache)]

    # -- feedback ---

    @property
    def has_requests(self) -> bool:
        """Whether anything is missing or waited for: only then can a NACK or a keyframe request be due."""
        nack, keyframes = self.nack, self.keyframes
        return (nack is not None and (nack.needs_keyframe or nack.pending > 0)) or (
            keyframes is not None and keyframes.waiting
        )

    def due_nacks(self, now: float, patience: float) -> tuple[int, ...]:
        """The sequence numbers to ask for once more: without an answer for ``patience``, 0 where that is not known."""
        return self.nack.due(now, patience) if self.nack is not None else ()

    def request_keyframe(self, now: float, *, urgent: bool) -> bool:
        """Ask for a keyframe, see :meth:`KeyFrameRequester.request`. False where there are none."""
        return self.keyframes is not None and self.keyframes.request(now, urgent=urgent)

    def due_keyframe_request(self, now: float) -> bool:
        """Whether a keyframe request is to be sent (again) now."""
        keyframes = self.keyframes
        if keyframes is None:
            return False
        if self.nack is not None and self.nack.needs_keyframe:
            self.nack.needs_keyframe = False
            keyframes.request(now, urgent=False)
        return keyframes.due(now)

    def on_sender_report(self, report: SenderReport, now: float) -> None:
        """The producer's SR: for lip-sync and for our receiver reports."""
        self.sender_report = (report, now)
        self.reception.on_sender_report(report, now)

    def update_score(self) -> bool:
        """Whether the score is another one now; to be called once a second."""
        lost = max(0, self.reception.packets_lost)
        return self.score.update(self.packets - self.repaired, lost, self.repaired, self.retransmitted)

    def report(self, now: float) -> ReportBlock | None:
        """The block for our next receiver report, where anything has been received."""
        return self.reception.report(now) if self.last_arrival is not None else None
