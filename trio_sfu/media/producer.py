"""What one user sends: one or several RTP streams of one source, and the consumers that watch it.

Made by :meth:`trio_sfu.media.router.Router.produce`. A producer with several streams (simulcast) gives each
consumer one of them: the best that is alive and not above what it prefers.
"""

from typing import TYPE_CHECKING, Any, Final

from trio_sfu.media.codec_matching import is_rtx
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
        self._codecs: Final = [_codec_of(rtp_parameters, encoding) for encoding in rtp_parameters.encodings]
        self.has_keyframes: Final = keyframe_test(self._codecs[0].mime_type) is not None
        # Owned
        self.paused = False
        self.closed = False
        self.streams: dict[int, IncomingStream] = {}
        """By place among the encodings."""
        self.consumers: Final[dict[str, Consumer]] = {}
        self._live_since: dict[IncomingStream, float] = {}
        for index, encoding in enumerate(rtp_parameters.encodings):
            if encoding.ssrc is not None:
                self._add_stream(index, encoding.ssrc, encoding.rtx.ssrc if encoding.rtx else None)

    # -- streams ---

    def _add_stream(self, index: int, ssrc: int, rtx_ssrc: int | None) -> IncomingStream:
        stream = IncomingStream(self.kind, self._codecs[index], self.mapping, ssrc=ssrc, rtx_ssrc=rtx_ssrc, index=index)
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
                    too_high = target is not None and target.index > consumer.preferred_layer >= index
                    if target is None or (too_high and consumer.packets == 0):
                        consumer.bind(stream)
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

    def stream_for(self, consumer: "Consumer", now: float) -> IncomingStream | None:
        """What ``consumer`` is to get by its preference, of the streams that are alive.

        Where none is, what it has already, or the lowest: senders begin with that.
        """
        live = [stream for stream in self.streams.values() if stream.is_live(now)]
        if live:
            return choose_stream(live, consumer.preferred_layer)
        return consumer.target or choose_stream(self.streams.values(), 0)

    def choose_streams(self, now: float) -> None:
        """Move consumers to the stream for them: at once when theirs has stopped, else when the other has lasted.

        To be called once a second.
        """
        if len(self.rtp_parameters.encodings) == 1:
            return
        live = [stream for stream in self.streams.values() if stream.is_live(now)]
        self._live_since = {stream: self._live_since.get(stream, now) for stream in live}
        settled = {stream for stream, since in self._live_since.items() if now - since >= _SETTLED_SECONDS}
        for consumer in self.consumers.values():
            target = consumer.target
            eligible = [stream for stream in live if stream in settled or stream is target]
            stream = choose_stream(eligible or live, consumer.preferred_layer)
            if stream is not None:
                consumer.bind(stream)
            consumer.tell_layer(now)

    def request_keyframe(self, stream: IncomingStream, now: float, *, urgent: bool) -> None:
        """Ask the sender for a keyframe of ``stream``, now or as soon as it is its turn."""
        if not (self.paused or self.closed) and stream.request_keyframe(now, urgent=urgent):
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
            consumer.tell_layer(self._session.now())

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
