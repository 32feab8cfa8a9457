"""A room's live stream as a viewer without a screen gets it: segments from the playlist, pictures and sound in them.

Used by :mod:`bench.hls`.
"""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Final
from urllib.parse import urljoin

import av
import numpy as np

from trio_sfu.hls.layout import Tile

#: The time code's shape: tests/browser/client/capture.ts draws it.
CODE_ROWS: Final = 2
CODE_COLUMNS: Final = 24
_POLL_SECONDS: Final = 0.5
# A second lies between two flashes: what is so long after the last one is another.
_QUIET_SECONDS: Final = 0.5
_LOUD: Final = 0.1
_WHITE: Final = 128


@dataclass(frozen=True, slots=True)
class Piece:
    """One segment; times in seconds, ``start`` is since the epoch, as the playlist says."""

    msn: int
    start: float
    duration: float
    url: str


@dataclass(slots=True)
class Run:
    """What one init segment belongs to: the init segment and all segments of it, in one file."""

    init_url: str
    path: Path
    pieces: list[Piece] = field(default_factory=list)

    @property
    def start(self) -> float:
        return self.pieces[0].start

    @property
    def end(self) -> float:
        return self.pieces[-1].start + self.pieces[-1].duration


class Follower:
    """Collects a stream's segments into files, one a run, in a thread of its own."""

    def __init__(self, url: str, folder: Path) -> None:
        # Given
        self._url: Final = url
        self._folder: Final = folder
        # Owned
        self.runs: list[Run] = []
        self.failure: BaseException | None = None
        self._next = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    @classmethod
    @contextmanager
    def following(cls, url: str, folder: Path) -> Iterator[Follower]:
        """Follow the playlist at ``url``; after the block the files are complete. Raises what went wrong."""
        follower = cls(url, folder)
        follower._thread.start()
        try:
            yield follower
        finally:
            follower._over.set()
            follower._thread.join()
        if follower.failure is not None:
            raise follower.failure

    def _follow(self) -> None:
        try:
            while True:
                over = self._over.is_set()
                self._take_new()
                if over:
                    return
                self._over.wait(_POLL_SECONDS)
        except BaseException as error:
            self.failure = error

    def _take_new(self) -> None:
        try:
            playlist = fetch(self._url).decode()
        except urllib.error.HTTPError:
            return  # not yet
        for init_url, piece in parse(playlist, self._url):
            if piece.msn < self._next:
                continue
            if not self.runs or self.runs[-1].init_url != init_url:
                path = self._folder / f"run{len(self.runs)}.mp4"
                path.write_bytes(fetch(init_url))
                self.runs.append(Run(init_url, path))
            run = self.runs[-1]
            with run.path.open("ab") as file:
                file.write(fetch(piece.url))
            run.pieces.append(piece)
            self._next = piece.msn + 1


def fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=60) as response:
        body: bytes = response.read()
        return body


def wait_for_playlist(url: str, seconds: float) -> float:
    """The wall clock when the playlist was there. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            fetch(url)
        except urllib.error.HTTPError:
            time.sleep(0.01)
        else:
            return time.time()
    raise TimeoutError(f"no playlist after {seconds:g} s")


def parse(playlist: str, url: str) -> Iterator[tuple[str, Piece]]:
    """The complete segments with the URLs of their init segments."""
    msn, start, duration, init = 0, 0.0, 0.0, ""
    for line in playlist.splitlines():
        tag, _, value = line.partition(":")
        match tag:
            case "#EXT-X-MEDIA-SEQUENCE":
                msn = int(value)
            case "#EXT-X-MAP":
                init = urljoin(url, value.split('"')[1])
            case "#EXT-X-PROGRAM-DATE-TIME":
                start = datetime.fromisoformat(value).timestamp()
            case "#EXTINF":
                duration = float(value.rstrip(","))
        if line and not line.startswith("#"):
            yield init, Piece(msn, start, duration, urljoin(url, line))
            msn += 1


@dataclass(frozen=True, slots=True)
class Offset:
    """A flash and its beep: where the flash is in the stream, and how much later the beep is; in seconds."""

    at: float
    late: float


def offsets(path: Path) -> list[Offset]:
    """The flashes that have a beep. The file is one participant's, of capture ``flash``."""
    flashes, beeps = _onsets(path)
    paired = [(flash, min(beeps, key=lambda beep: abs(beep - flash))) for flash in flashes if beeps]
    return [Offset(flash, beep - flash) for flash, beep in paired if abs(beep - flash) < _QUIET_SECONDS]


def _onsets(path: Path) -> tuple[list[float], list[float]]:
    flashes: list[float] = []
    beeps: list[float] = []
    white, loud_at = True, float("-inf")
    with av.open(str(path)) as container:
        for frame in container.decode(video=0, audio=0):
            if isinstance(frame, av.VideoFrame):
                height, width = frame.height, frame.width
                middle = luma(frame)[height // 4 : 3 * height // 4 : 8, width // 4 : 3 * width // 4 : 8]
                was_white, white = white, bool(middle.mean() > _WHITE)
                if white and not was_white:
                    flashes.append(frame.time or 0.0)
            elif isinstance(frame, av.AudioFrame):
                loud = np.flatnonzero(np.abs(frame.to_ndarray()).max(axis=0) > _LOUD)
                if loud.size:
                    at = (frame.time or 0.0) + int(loud[0]) / frame.sample_rate
                    if at - loud_at > _QUIET_SECONDS:
                        beeps.append(at)
                    loud_at = (frame.time or 0.0) + int(loud[-1]) / frame.sample_rate
    return flashes, beeps


def times(path: Path, tiles: Sequence[Tile], near: float) -> list[float]:
    """When each picture was drawn that shows a time code in one of ``tiles``: seconds since the epoch."""
    found: list[float] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            picture = luma(frame)
            for tile in tiles:
                at = read_code(_blocks(picture, tile), near)
                if at is not None:
                    found.append(at)
                    break
    return found


def luma(frame: av.VideoFrame) -> np.ndarray:
    plane = frame.planes[0]
    return np.frombuffer(bytes(plane), np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]


def _blocks(picture: np.ndarray, tile: Tile) -> str:
    block_width, block_height = tile.width / CODE_COLUMNS, tile.height / CODE_ROWS
    bits = ""
    for row in range(CODE_ROWS):
        for column in range(CODE_COLUMNS):
            x = round(tile.x + (column + 0.5) * block_width)
            y = round(tile.y + (row + 0.5) * block_height)
            bits += "1" if picture[y - 2 : y + 2, x - 2 : x + 2].mean() > _WHITE else "0"
    return bits


def read_code(bits: str, near: float) -> float | None:
    """The time that 48 blocks say, in seconds since the epoch; None where it is wrong, or an hour from ``near``."""
    octets = int(bits, 2).to_bytes(6, "big")
    if sum(octet * factor for octet, factor in zip(octets[:5], (1, 3, 5, 7, 9), strict=True)) % 256 != octets[5]:
        return None
    modulus = 1 << 40
    low = int.from_bytes(octets[:5], "big")
    wanted = round(near * 1000)
    whole = wanted + (low - wanted + modulus // 2) % modulus - modulus // 2
    return whole / 1000 if abs(whole - wanted) < 3_600_000 else None


def picture_of(tile: Tile, aspect: float) -> Tile:
    """Where in its tile a letterboxed picture is."""
    width = min(tile.width, round(tile.height * aspect))
    height = min(tile.height, round(tile.width / aspect))
    return Tile(tile.x + (tile.width - width) // 2, tile.y + (tile.height - height) // 2, width, height)
