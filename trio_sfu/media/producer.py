"""What one user sends: one or several RTP streams of one source, and the consumers that watch it.

Made by :meth:`trio_sfu.media.router.Router.produce`. A producer with several streams (simulcast), or with one of
several layers (SVC), gives each consumer the best that is alive and not above what it wants.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

from trio_sfu.media.codec_matching import is_rtx
from trio_sfu.media.frame_mark import EVERYTHING, Layers
from trio_sfu.media.incoming_stream import IncomingStream
from trio_sfu.media.layers import choose_stream
from trio_sfu.media.ortc import ProducerMapping
from trio_sfu.media.parameters import MediaKind, RtpCodecParameters, RtpEncodingParameters, RtpParameters
from trio_sfu.media.scalability_modes import parse_scalability_mode
from trio_sfu.wire.keyframe import keyframe_test

if TYPE_CHECKING:
    from trio_sfu.media.consumer import Consumer
    from trio_sfu.media.rtp_session import RtpSession

__all__ = ["Producer"]

# How long a better stream must have been alive before consumers go over to it unasked.
_SETTLED_SECONDS: Final = 2.0
# How long a stream must have been of no use to anybody before its sender hears of it.
_UNWANTED_SECONDS: Final = 5.0
_OPTIONS_SECONDS: Final = 0.2
_NONE: Final = -1  # below all streams


class Producer:
    """A source of one ``kind``; its streams appear as their packets do where only rids were signalled."""

    def __init__(
        self,
        producer_id: str,
        session: "RtpSession",
        kind: MediaKind,
        rtp_parameters: RtpParameters,
        consumable: RtpParameters,
        mapping: ProducerMapping,
        app_data: dict[str, Any],
        *,
        cname: str,
    ) -> None:
        # Given
        self.id: Final = producer_id
        self.kind: Final[MediaKind] = kind
        self.rtp_parameters: Final = rtp_parameters
        self.consumable: Final = consumable
        self.mapping: Final = mapping
        self.app_data: Final = app_data
        self.cname: Final = cname
        self._session: Final = session
        # Derived
        self.type: Final = _type_of(rtp_parameters.encodings)
        mode = parse_scalability_mode(rtp_parameters.encodings[0].scalability_mode)
        several = len(rtp_parameters.encodings) > 1
        self.top: Final = Layers(
            len(rtp_parameters.encodings) - 1 if several else mode.spatial_layers - 1, mode.temporal_layers - 1
        )
        """The highest layers that were signalled; packets may show more temporal ones."""
        self._codecs: Final = [_codec_of(rtp_parameters, encoding) for encoding in rtp_parameters.encodings]
        self.has_keyframes: Final = keyframe_test(self._codecs[0].mime_type) is not None
        # Owned
        self.paused = False
        self.closed = False
        self.streams: dict[int, IncomingStream] = {}
        """By place among the encodings."""
        self.consumers: Final[dict[str, Consumer]] = {}
        self.on_scores_change: Callable[[], None] | None = None
        """Told that :attr:`IncomingStream.score` of a stream is another one. Must not block."""
        self.on_wanted_change: Callable[[int | None], None] | None = None
        """Told the highest stream of a simulcast producer that is of use, None: none is. Must not block."""
        self._wanted = len(rtp_parameters.encodings) - 1  # as told
        self._unwanted_since: float | None = None
        self._wanted_since = _NONE  # the highest that was wanted since then
        self._options: list[tuple[Layers, int]] = []
        self._options_until = float("-inf")
        self._live_since: dict[IncomingStream, float] = {}
        for index, encoding in enumerate(rtp_parameters.encodings):
            if encoding.ssrc is not None:
                self._add_stream(index, encoding.ssrc, encoding.rtx.ssrc if encoding.rtx else None)

    # -- streams ---

    def _add_stream(self, index: int, ssrc: int, rtx_ssrc: int | None) -> IncomingStream:
        stream = IncomingStream(
            self.kind,
            self._codecs[index],
            self.mapping,
            ssrc=ssrc,
            rtx_ssrc=rtx_ssrc,
            index=index,
            simulcast=self.type == "simulcast",
            layered=self.type == "svc",
        )
        self.streams[index] = stream
        return stream

    def adopt(self, ssrc: int, payload_type: int, rid: str | None) -> IncomingStream | None:
        """Find the encoding that packets with an unsignalled ``ssrc`` belong to: the new stream.

        ``rid`` is the packets' RTP stream identifier (RFC 8852), where they carry one. None where the packets
        are RTX, or fit no encoding, or one whose SSRC is known already: as in mediasoup the first one stays.
        """
        for index, encoding in enumerate(self.rtp_parameters.encodings):
            if encoding.ssrc is None and encoding.rid == rid and payload_type == self._codecs[index].payload_type:
                if index in self.streams:
                    return None
                stream = self._add_stream(index, ssrc, None)
                for consumer in self.consumers.values():
                    target = consumer.target
                    too_high = target is not None and target.index > consumer.wanted.spatial >= index
                    if target is None or (too_high and consumer.packets == 0):
                        consumer.bind(stream, self.layers_within(stream, consumer.wanted))
                return stream
        return None

    def adopt_repair(self, ssrc: int, rid: str | None) -> IncomingStream | None:
        """The stream that RTX packets of the unsignalled ``ssrc`` repair, by their repaired rid."""
        for index, encoding in enumerate(self.rtp_parameters.encodings):
            stream = self.streams.get(index)
            if stream is not None and stream.rtx_ssrc is None and encoding.ssrc is None and encoding.rid == rid:
                stream.rtx_ssrc = ssrc
                return stream
        return None

    def layers_within(self, stream: IncomingStream, wanted: Layers) -> Layers:
        """What part of ``stream`` is for a consumer that wants these layers of the producer."""
        if self.type == "simulcast":
            # A stream below the one that is wanted is taken whole.
            return Layers(EVERYTHING.spatial, EVERYTHING.temporal if stream.index < wanted.spatial else wanted.temporal)
        return wanted

    def choose_for(self, consumer: "Consumer", now: float, *, lasted: bool = False) -> None:
        """Give ``consumer`` the best that is alive, with ``lasted`` for some time, and not above what it wants.

        Where nothing is alive, what it has already, or the lowest: senders begin with that.
        """
        live = [stream for stream in self.streams.values() if stream.is_live(now)]
        if lasted:
            live = self._lasting(live, consumer, now) or live
        stream = choose_stream(live, consumer.wanted.spatial) if self.type == "simulcast" else None
        if stream is None:
            stream = consumer.target or choose_stream(live or self.streams.values(), 0)
        if stream is not None:
            consumer.bind(stream, self.layers_within(stream, consumer.wanted))

    def options(self, now: float) -> list[tuple[Layers, int]]:
        """What a consumer may get, from the least to all, and the payload bit rate of each; none while nothing comes.

        Of the higher spatial layers those that are half as smooth or smooth: a small picture that moves is better than
        a large one that hardly does.
        """
        if now >= self._options_until:
            self._options_until = now + _OPTIONS_SECONDS
            self._options = list(self._list_options(now))
        return self._options

    def _list_options(self, now: float) -> Iterator[tuple[Layers, int]]:
        least = 0
        for index in sorted(self.streams):
            stream = self.streams[index]
            if not stream.is_live(now):
                continue
            rates = stream.layer_rates.read(now)
            top = Layers(
                max((layers.spatial for layers in rates), default=0),
                max((layers.temporal for layers in rates), default=0),
            )
            for spatial in range(top.spatial + 1):
                for temporal in range(top.temporal + 1):
                    if (least and temporal < top.temporal - 1) or (spatial and temporal < top.temporal - 1):
                        continue
                    part = Layers(spatial, temporal)
                    bitrate = sum(rate for layers, rate in rates.items() if part.hold(layers))
                    if not rates:
                        (bitrate,) = stream.rates.read((stream.octets,), now)
                    if not bitrate:
                        continue
                    least = max(least + 1, bitrate)
                    yield self._place_of(stream, part if rates else EVERYTHING), least

    def _place_of(self, stream: IncomingStream, part: Layers) -> Layers:
        """The layers of the producer that mean ``part`` of ``stream``."""
        return Layers(stream.index, part.temporal) if self.type == "simulcast" else part

    def choose_streams(self, now: float) -> None:
        """Move consumers to what is for them: at once when theirs has stopped, else when the other has lasted.

        To be called once a second.
        """
        if not self.has_keyframes:
            return
        live = [stream for stream in self.streams.values() if stream.is_live(now)]
        self._live_since = {stream: self._live_since.get(stream, now) for stream in live}
        for consumer in self.consumers.values():
            self.choose_for(consumer, now, lasted=True)
            consumer.hasten(now)
            consumer.tell_layers(now)
        self.tell_wanted(now)

    def _lasting(self, live: list[IncomingStream], consumer: "Consumer", now: float) -> list[IncomingStream]:
        """The streams that have been alive for some time, or are what ``consumer`` has."""
        return [
            stream
            for stream in live
            if stream is consumer.target or now - self._live_since.get(stream, now) >= _SETTLED_SECONDS
        ]

    def tell_wanted(self, now: float) -> None:
        """Say which is the highest stream that anybody wants: more at once, less when that has lasted.

        To be called once a second, and when a consumer begins to want more.
        """
        if self.type != "simulcast":
            return
        wanted = max(
            (
                min(consumer.preferred.spatial, self.top.spatial)
                for consumer in self.consumers.values()
                if not consumer.paused
            ),
            default=_NONE,
        )
        if wanted < self._wanted:
            if self._unwanted_since is None:
                self._unwanted_since, self._wanted_since = now, wanted
            self._wanted_since = wanted = max(wanted, self._wanted_since)
            if now - self._unwanted_since < _UNWANTED_SECONDS:
                return
        self._unwanted_since = None
        if wanted != self._wanted:
            self._wanted = wanted
            if self.on_wanted_change is not None:
                self.on_wanted_change(wanted if wanted != _NONE else None)

    def update_scores(self) -> None:
        """To be called once a second."""
        changed = [stream.update_score() for stream in self.streams.values()] if not self.paused else []
        if any(changed) and self.on_scores_change is not None:
            self.on_scores_change()

    def request_keyframe(self, stream: IncomingStream, now: float, *, urgent: bool) -> None:
        """Ask the sender for a keyframe of ``stream``, now or as soon as it is its turn."""
        if self.paused or self.closed:
            return
        self._session.hurry()
        if stream.request_keyframe(now, urgent=urgent):
            self._session.send_keyframe_request(stream)

    @property
    def round_trip(self) -> float | None:
        """To the sender and back, in seconds; None where it is not known."""
        return self._session.round_trip.latest

    # -- state ---

    def pause(self) -> None:
        """Forward nothing until :meth:`resume`."""
        self.paused = True
        for consumer in self.consumers.values():
            consumer.tell_layers(self._session.now())

    def resume(self) -> None:
        """Go on; every consumer begins with a keyframe."""
        if self.paused:
            self.paused = False
            now = self._session.now()
            for consumer in self.consumers.values():
                consumer.restart(now)

    def close(self) -> None:
        """Stop for good and close all consumers; does nothing the second time."""
        if self.closed:
            return
        self.closed = True
        for consumer in tuple(self.consumers.values()):
            consumer.close()
        for stream in self.streams.values():
            stream.cache.clear()
        self._session.remove_producer(self)


def _codec_of(parameters: RtpParameters, encoding: RtpEncodingParameters) -> RtpCodecParameters:
    """The media codec of an encoding: the first that there is, unless it names another."""
    media = [codec for codec in parameters.codecs if not is_rtx(codec)]
    return next((codec for codec in media if codec.payload_type == encoding.codec_payload_type), media[0])


def _type_of(encodings: tuple[RtpEncodingParameters, ...]) -> str:
    """mediasoup's ``ProducerType``."""
    if len(encodings) > 1:
        return "simulcast"
    mode = parse_scalability_mode(encodings[0].scalability_mode)
    return "svc" if mode.spatial_layers > 1 or mode.temporal_layers > 1 else "simple"
