"""A room's live stream as FFmpeg gets it from the server: playlist, pictures and sound."""

import io
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

import av
import numpy
from imageio_ffmpeg import get_ffmpeg_exe

from tests.browser.viewer import SCALE, Look, Point
from tests.support.playlist_reader import ReadPlaylist, read_playlist
from tests.support.server import Server

__all__ = ["RATE", "Received", "flashes_and_beeps", "has_tone", "look_at", "sound_of"]

Sound = numpy.ndarray[Any, numpy.dtype[numpy.float32]]

RATE: Final = 48_000


class Received:
    """The stream of one room."""

    def __init__(self, server: Server, room: str) -> None:
        self.url: Final = f"{server.url}/hls/{room}/index.m3u8"

    def fetch(self, name: str = "index.m3u8") -> bytes:
        with urllib.request.urlopen(self.url.replace("index.m3u8", name), timeout=10) as response:
            content: bytes = response.read()
            return content

    @property
    def playlist(self) -> ReadPlaylist:
        return read_playlist(self.fetch().decode())

    def answers(self, seconds: float = 20) -> float:
        """Wait until the playlist is there; returns when (Unix time)."""
        deadline = time.monotonic() + seconds
        while True:
            try:
                self.fetch()
                return time.time()
            except urllib.error.HTTPError as error:
                if error.code != 404 or time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def settles(self, segments: int = 2, seconds: float = 20) -> None:
        """Wait until the newest run has so many complete segments."""
        self.answers()
        deadline = time.monotonic() + seconds
        while len(self._newest_run()) < segments:
            assert time.monotonic() < deadline, "no segments come"
            time.sleep(0.1)

    def _newest_run(self) -> list[str]:
        playlist = self.playlist
        run = playlist.segments[-1].map_uri
        return [each.uri for each in playlist.segments if each.map_uri == run and each.uri is not None]

    @property
    def missing(self) -> list[float]:
        """Seconds of the wall clock between the end of each run and the beginning of the next."""
        segments = [each for each in self.playlist.segments if each.duration is not None]
        pairs = pairwise(segments)
        return [b.date - a.date - (a.duration or 0) for a, b in pairs if a.map_uri != b.map_uri]

    # -- by the program, from the server's address, as anybody's player ---

    def play(self, seconds: float = 3) -> tuple[str, Sound]:
        """What FFmpeg says of it, and its sound from about now on, mono."""
        command = [get_ffmpeg_exe(), "-hide_banner", "-nostats", "-live_start_index", "-1", "-i", self.url]
        command += ["-t", str(seconds), "-vn", "-ac", "1", "-ar", str(RATE), "-f", "f32le", "-"]
        done = subprocess.run(command, capture_output=True, timeout=60)
        description = done.stderr.decode()
        assert done.returncode == 0, description
        sound = numpy.frombuffer(done.stdout, numpy.float32)
        assert len(sound) > (seconds - 0.5) * RATE
        return description, sound

    # -- by FFmpeg's libraries, from the segments: the newest run from its beginning, with its times ---

    def newest_run(self) -> bytes:
        """The run's init segment and its complete segments."""
        playlist = self.playlist
        return b"".join(map(self.fetch, [playlist.segments[-1].map_uri, *self._newest_run()]))


def _pictures(data: bytes, width: int, height: int, pixel_format: str) -> Iterator[tuple[float, Any]]:
    with av.open(io.BytesIO(data), "r") as container:
        for frame in container.decode(video=0):
            assert frame.time is not None
            yield frame.time, frame.to_ndarray(width=width, height=height, format=pixel_format)


def look_at(data: bytes, points: Sequence[Point]) -> list[Look]:
    """What the pictures of a run show at some points, which are of the viewer's scale.

    Without its first second, in which there are cards until the first keyframes have come.
    """
    pictures = [each for each in _pictures(data, *SCALE, "rgb24") if each[0] >= 1]
    begin, end = pictures[0][0], pictures[-1][0]
    looks = []
    for x, y in points:
        colours = ((time - begin, picture[y, x]) for time, picture in pictures)
        looks.append(Look(end - begin, tuple((time, (int(r), int(g), int(b))) for time, (r, g, b) in colours)))
    return looks


def sound_of(data: bytes) -> Sound:
    """The sound of a file, mono, from the zero of its times on."""
    pieces: list[Sound] = []
    with av.open(io.BytesIO(data), "r") as container:
        for frame in container.decode(audio=0):
            if not pieces:
                assert frame.time is not None
                pieces.append(numpy.zeros(max(0, round(frame.time * RATE)), numpy.float32))
            pieces.append(frame.to_ndarray()[0])
    return numpy.concatenate(pieces)


def flashes_and_beeps(data: bytes) -> tuple[list[float], list[float]]:
    """When pictures become white and when sound sets in, in seconds of the file's time."""
    light = [(time, picture.mean()) for time, picture in _pictures(data, 32, 18, "gray")]
    flashes = [after[0] for before, after in pairwise(light) if before[1] < 128 <= after[1]]
    sound = numpy.abs(sound_of(data))
    loud = numpy.flatnonzero(sound > 0.25 * sound.max())
    first = numpy.flatnonzero(numpy.diff(loud) > RATE // 4) + 1  # after a quarter of a second of silence
    return flashes, [float(place) / RATE for place in (loud[0], *loud[first])]


def has_tone(sound: Sound, hertz: float) -> bool:
    """Whether a sine of that frequency stands out."""
    spectrum = numpy.abs(numpy.fft.rfft(sound * numpy.hanning(len(sound))))
    frequencies = numpy.fft.rfftfreq(len(sound), 1 / RATE)
    near = spectrum[abs(frequencies - hertz) < max(5, 4 * frequencies[1])].max()
    return bool(near > 0.03 * len(sound) / 4)
