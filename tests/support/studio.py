"""Participants in this process for tests of live streams: real VP8 and Opus on a real router, no browser, no network.

Each actor has a colour, with a white bar that moves, and a tone; it answers requests for keyframes.
"""

import fractions
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from random import Random

import av
import msgspec
import numpy
import trio

from tests.support.media_core import AUDIO_TYPE, VIDEO_TYPE, FakeSink, audio_parameters, rtp, video_parameters
from trio_sfu.media.parameters import RtpParameters
from trio_sfu.media.router import Router
from trio_sfu.media.rtp_session import RtpSession
from trio_sfu.rooms.live import LiveParticipant
from trio_sfu.wire.rtcp import PictureLossIndication, SenderReport

#: Luma of the actors' pictures, far enough apart to be told from each other; the bar is white.
LUMA = (60, 95, 130, 165, 200)
TONES = (400, 700, 1100, 1600, 2300)
FRAME_RATE = 15
_NTP_EPOCH = 2_208_988_800


class _Sink(FakeSink):
    """Notes requests for keyframes and drops everything else."""

    def __init__(self) -> None:
        super().__init__()
        self.keyframe_wanted = False

    def send_rtcp(self, data: bytes) -> None:
        super().send_rtcp(data)
        self.keyframe_wanted |= any(isinstance(each, PictureLossIndication) for each in self.take_rtcp())


class _Loop:
    """Encoded once: a second of tone, and pictures on demand."""

    def __init__(self, number: int) -> None:
        self.luma = LUMA[number % len(LUMA)]
        encoder = av.CodecContext.create("libopus", "w")
        assert isinstance(encoder, av.AudioCodecContext)
        encoder.sample_rate, encoder.layout, encoder.format = 48_000, "stereo", "s16"
        encoder.bit_rate = 32_000
        tone = numpy.sin(numpy.arange(48_000) * 2 * numpy.pi * TONES[number % len(TONES)] / 48_000) * 6_000
        stereo = numpy.repeat(tone.astype(numpy.int16), 2).reshape(1, -1)
        self.sound: list[bytes] = []
        for start in range(0, 96_000, 1920):
            frame = av.AudioFrame.from_ndarray(stereo[:, start : start + 1920], format="s16", layout="stereo")
            frame.sample_rate, frame.pts = 48_000, start // 2
            self.sound += [bytes(packet) for packet in encoder.encode(frame)]
        self._numbers = count()
        self.resize(160, 90)

    def resize(self, width: int, height: int) -> None:
        """Pictures of this size, even numbers, from now on: the next one is a keyframe."""
        self._size = width, height
        self._encoder = av.CodecContext.create("libvpx", "w")
        assert isinstance(self._encoder, av.VideoCodecContext)
        self._encoder.width, self._encoder.height, self._encoder.pix_fmt = width, height, "yuv420p"
        self._encoder.time_base = fractions.Fraction(1, FRAME_RATE)
        self._encoder.bit_rate = 150_000
        self._encoder.options = {
            "deadline": "realtime",
            "cpu-used": "8",
            "lag-in-frames": "0",
            "error-resilient": "1",
            "kf-max-dist": "9999",
        }

    def picture(self, *, keyframe: bool) -> bytes:
        """The next one, encoded; the bar is a little further on."""
        number = next(self._numbers)
        width, height = self._size
        plane = numpy.full((height * 3 // 2, width), 128, numpy.uint8)
        plane[:height] = self.luma
        bar = number * 4 % width
        plane[:height, bar : bar + 12] = 235
        frame = av.VideoFrame.from_ndarray(plane, format="yuv420p")
        frame.pts = number
        if keyframe:
            frame.pict_type = av.video.frame.PictureType.I
        assert isinstance(self._encoder, av.VideoCodecContext)
        return b"".join(bytes(packet) for packet in self._encoder.encode(frame))


class Actor:
    """One participant. ``frozen`` stops the video, ``silent`` the audio; packets just do not come any more."""

    def __init__(self, studio: "Studio", number: int, name: str) -> None:
        self.frozen = False
        self.silent = False
        self._studio = studio
        self._loop = _Loop(number)
        self._sink = _Sink()
        self._ssrc = 1000 * (number + 1)
        self.session = RtpSession(
            clock=trio.current_time, wall_clock=time.time, on_fault=_raise, on_abuse=_fail, random=Random(number)
        )
        studio.router.add_session(self.session)
        self.session.connect(self._sink, trio.current_time())
        self.name = name
        self.participant = self.produce()

    def produce(self) -> LiveParticipant:
        """Produce anew; what was produced before is closed."""
        self._ssrc += 2
        for producer in tuple(self.session.producers.values()):
            producer.close()
        video = video_parameters(encodings=[{"ssrc": self._ssrc}])
        audio = audio_parameters(encodings=[{"ssrc": self._ssrc + 1}])
        self.participant = LiveParticipant(
            self.name,
            self.name,
            self._studio.router.produce(self, "audio", msgspec.convert(audio, RtpParameters)),
            self._studio.router.produce(self, "video", msgspec.convert(video, RtpParameters)),
        )
        return self.participant

    def resize(self, width: int, height: int) -> None:
        """Pictures of this size from now on."""
        self._loop.resize(width, height)

    async def send(self) -> None:
        """Send until cancelled, as fast as the clock goes."""
        began = trio.current_time()
        pictures, sounds, packets = 0, 0, count()
        self._sink.keyframe_wanted = True
        last_ssrc = 0
        while True:
            now = trio.current_time()
            self.session.flush(now)
            if last_ssrc != self._ssrc or sounds % 50 == 0:
                last_ssrc = self._ssrc
                self._report(began, now)
            if not self.silent:
                sound = self._loop.sound[sounds % len(self._loop.sound)]
                data = rtp(self._ssrc + 1, sounds, sounds * 960, payload_type=AUDIO_TYPE, payload=sound)
                self.session.receive_rtp(memoryview(data), now)
            sounds += 1
            if (now - began) * FRAME_RATE >= pictures:
                if not self.frozen:
                    for data in self._picture(pictures, packets):
                        self.session.receive_rtp(memoryview(data), now)
                pictures += 1
            self.session.flush(now)
            await trio.sleep_until(began + sounds * 0.02)

    def _picture(self, number: int, packets: Iterator[int]) -> Iterator[bytes]:
        wanted, self._sink.keyframe_wanted = self._sink.keyframe_wanted, False
        encoded = self._loop.picture(keyframe=wanted)
        pieces = [encoded[start : start + 1100] for start in range(0, len(encoded), 1100)]
        for index, piece in enumerate(pieces):
            payload = (b"\x00" if index else b"\x10") + piece
            last = index == len(pieces) - 1
            timestamp = round(number * 90_000 / FRAME_RATE)
            yield rtp(self._ssrc, next(packets), timestamp, payload_type=VIDEO_TYPE, marker=last, payload=payload)

    def _report(self, began: float, now: float) -> None:
        ntp = int((time.time() + _NTP_EPOCH) * 2**32)
        for ssrc, rate in ((self._ssrc, 90_000), (self._ssrc + 1, 48_000)):
            report = SenderReport(ssrc, ntp, round((now - began) * rate) & 0xFFFFFFFF, 0, 0)
            self.session.receive_rtcp(report.to_bytes(), now)


class Studio:
    """Actors on one router, which is driven as a room does it."""

    def __init__(self, nursery: trio.Nursery) -> None:
        self.router = Router()
        self._nursery = nursery
        self._numbers = count()

    def actor(self, name: str = "") -> Actor:
        """One more participant, sending from now on."""
        number = next(self._numbers)
        actor = Actor(self, number, name or f"user{number}")
        self._nursery.start_soon(actor.send)
        return actor

    async def tick(self) -> None:
        """What a room does."""
        while True:
            self.router.tick(trio.current_time())
            await trio.sleep(0.02)


@asynccontextmanager
async def open_studio() -> AsyncIterator[Studio]:
    """A router that is driven; its actors stop when the block ends."""
    async with trio.open_nursery() as nursery:
        studio = Studio(nursery)
        nursery.start_soon(studio.tick)
        yield studio
        nursery.cancel_scope.cancel()


def _raise(error: Exception) -> None:
    raise error


def _fail(reason: str) -> None:
    raise AssertionError(reason)
