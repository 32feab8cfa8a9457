"""FFmpeg's fragmented MP4, cut into its init segment and its fragments as it comes out of the pipe.

Used by :mod:`trio_sfu.hls.packager`. What FFmpeg writes is kept byte for byte; it is only looked at.

Source: ISO/IEC 14496-12, sections 8.8 (movie fragments) and 8.3 to 8.4 (tracks and their timescales).
"""

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

__all__ = ["BadMp4", "Fragment", "Init", "Mp4Splitter", "Track"]

#: The largest box taken, in bytes. A keyframe of 1080p is far below.
MAX_BOX: Final = 16 << 20

_HEADER: Final = struct.Struct(">I4s")
_U32: Final = struct.Struct(">I")
_U64: Final = struct.Struct(">Q")

_HANDLERS: Final[Mapping[bytes, Literal["video", "audio"]]] = {b"vide": "video", b"soun": "audio"}
_NON_SYNC: Final = 0x10000  # sample_is_non_sync_sample
# tfhd's flags
_BASE_DATA_OFFSET: Final = 0x1
_DESCRIPTION_INDEX: Final = 0x2
_DEFAULT_DURATION: Final = 0x8
_DEFAULT_SIZE: Final = 0x10
_DEFAULT_FLAGS: Final = 0x20
# trun's flags
_DATA_OFFSET: Final = 0x1
_FIRST_FLAGS: Final = 0x4
_DURATION: Final = 0x100
_SIZE: Final = 0x200
_FLAGS: Final = 0x400
_COMPOSITION_OFFSET: Final = 0x800


class BadMp4(ValueError):
    """The bytes are not the fragmented MP4 that we asked FFmpeg for."""


@dataclass(frozen=True, slots=True)
class Track:
    """``timescale``: units in a second; the defaults are those of its ``trex``."""

    kind: Literal["video", "audio"]
    timescale: int
    default_duration: int = 0
    default_flags: int = 0


@dataclass(frozen=True, slots=True)
class Init:
    """``ftyp`` and ``moov``. ``tracks``: by track id, audio and video only."""

    data: bytes
    tracks: Mapping[int, Track]


@dataclass(frozen=True, slots=True)
class Fragment:
    """One ``moof`` with its ``mdat``.

    Where it has several tracks it is described by its (first) video. ``start`` (decoding time) and ``duration`` are
    in seconds; ``keyframe``: video whose first sample is one.
    """

    data: bytes
    track: Literal["video", "audio"]
    start: float
    duration: float
    keyframe: bool


class Mp4Splitter:
    """One output of FFmpeg's. Holds one box at most that is not complete, and the ``moof`` before it."""

    def __init__(self) -> None:
        # owned
        self._buffer = bytearray()
        self._ftyp = b""
        self._tracks: Mapping[int, Track] | None = None
        self._moof: bytes | None = None

    def feed(self, data: bytes) -> list[Init | Fragment]:
        """What these bytes complete. Raises BadMp4, after which there is nothing more to be had."""
        self._buffer += data
        items: list[Init | Fragment] = []
        try:
            while (box := self._next_box()) is not None:
                if (item := self._take(*box)) is not None:
                    items.append(item)
        except (struct.error, IndexError) as error:  # a field that lies outside its box
            raise BadMp4("a box is too short for what it says it has") from error
        return items

    def _next_box(self) -> tuple[bytes, bytes, int] | None:
        """Type, the whole box, and how long its header is."""
        if len(self._buffer) < 8:
            return None
        size, kind = _HEADER.unpack_from(self._buffer)
        header = 8
        if size == 1:
            if len(self._buffer) < 16:
                return None
            header, size = 16, _U64.unpack_from(self._buffer, 8)[0]
        if not header <= size <= MAX_BOX:
            raise BadMp4(f"a {kind!r} box of {size} bytes")
        if len(self._buffer) < size:
            return None
        box = bytes(memoryview(self._buffer)[:size])
        del self._buffer[:size]
        return kind, box, header

    def _take(self, kind: bytes, box: bytes, header: int) -> Init | Fragment | None:
        if self._moof is not None:
            # The offsets in it count from its first byte, and the data were to follow.
            if kind != b"mdat":
                raise BadMp4(f"{kind!r} between moof and mdat")
            moof, self._moof = self._moof, None
            return self._fragment(moof, moof + box)
        if kind == b"ftyp":
            self._ftyp = box
        elif kind == b"moov":
            if self._tracks is not None:
                raise BadMp4("a second moov")
            self._tracks = _read_moov(box[header:])
            return Init(self._ftyp + box, self._tracks)
        elif kind == b"moof":
            self._moof = box
        elif kind == b"mdat":
            raise BadMp4("an mdat without its moof")
        return None  # styp, sidx, mfra and free are of no use in a playlist

    def _fragment(self, moof: bytes, data: bytes) -> Fragment:
        if self._tracks is None:
            raise BadMp4("a moof before the moov")
        header = 16 if moof[:4] == b"\0\0\0\1" else 8
        first: Fragment | None = None
        for kind, payload in _boxes(moof[header:]):
            if kind == b"traf":
                fragment = _read_traf(payload, self._tracks, data)
                if fragment.track == "video":
                    return fragment
                first = first or fragment
        if first is None:
            raise BadMp4("a moof without a track")
        return first


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Type and payload of each box in another one's payload."""
    at = 0
    while at < len(data):
        size, kind = _HEADER.unpack_from(data, at)
        header = 8
        if size == 1:
            header, size = 16, _U64.unpack_from(data, at + 8)[0]
        elif size == 0:  # to the end of what it is in
            size = len(data) - at
        if not header <= size <= len(data) - at:
            raise BadMp4(f"a {kind!r} box that is not within its container")
        yield kind, data[at + header : at + size]
        at += size


def _find(data: bytes, wanted: bytes) -> bytes:
    for kind, payload in _boxes(data):
        if kind == wanted:
            return payload
    raise BadMp4(f"no {wanted!r} box")


def _u32(data: bytes, at: int) -> int:
    value: int = _U32.unpack_from(data, at)[0]
    return value


def _u64(data: bytes, at: int) -> int:
    value: int = _U64.unpack_from(data, at)[0]
    return value


def _read_moov(data: bytes) -> Mapping[int, Track]:
    defaults: dict[int, tuple[int, int]] = {}
    for kind, trex in _boxes(_find(data, b"mvex")):
        if kind == b"trex":
            defaults[_u32(trex, 4)] = _u32(trex, 12), _u32(trex, 20)
    tracks: dict[int, Track] = {}
    for kind, trak in _boxes(data):
        if kind != b"trak":
            continue
        tkhd, mdia = _find(trak, b"tkhd"), _find(trak, b"mdia")
        mdhd = _find(mdia, b"mdhd")
        handler = _HANDLERS.get(_find(mdia, b"hdlr")[8:12])
        if handler is None:
            continue
        timescale = _u32(mdhd, 20 if mdhd[0] == 1 else 12)
        if not timescale:
            raise BadMp4("a timescale of zero")
        track_id = _u32(tkhd, 20 if tkhd[0] == 1 else 12)
        tracks[track_id] = Track(handler, timescale, *defaults.get(track_id, (0, 0)))
    if all(track.kind != "video" for track in tracks.values()):
        raise BadMp4("no video track")
    return tracks


def _read_traf(data: bytes, tracks: Mapping[int, Track], fragment: bytes) -> Fragment:
    tfhd = _find(data, b"tfhd")
    flags, track_id = _u32(tfhd, 0) & 0xFFFFFF, _u32(tfhd, 4)
    track = tracks.get(track_id)
    if track is None:
        raise BadMp4(f"a fragment of track {track_id}, which is not in the moov")
    if flags & _BASE_DATA_OFFSET:
        raise BadMp4("offsets that count from the file's beginning")
    at = 12 if flags & _DESCRIPTION_INDEX else 8
    default_duration, default_flags = track.default_duration, track.default_flags
    if flags & _DEFAULT_DURATION:
        default_duration = _u32(tfhd, at) or default_duration
        at += 4
    if flags & _DEFAULT_SIZE:
        at += 4
    if flags & _DEFAULT_FLAGS:
        default_flags = _u32(tfhd, at)
    tfdt = _find(data, b"tfdt")
    start = _u64(tfdt, 4) if tfdt[0] == 1 else _u32(tfdt, 4)
    runs = [_read_trun(payload, default_duration, default_flags) for kind, payload in _boxes(data) if kind == b"trun"]
    first = next((sample_flags for _, sample_flags in runs if sample_flags is not None), _NON_SYNC)
    return Fragment(
        fragment,
        track.kind,
        start / track.timescale,
        sum(duration for duration, _ in runs) / track.timescale,
        track.kind == "video" and not first & _NON_SYNC,
    )


def _read_trun(data: bytes, default_duration: int, default_flags: int) -> tuple[int, int | None]:
    """The duration of all samples, and the flags of the first (None: there are no samples)."""
    flags, count = _u32(data, 0) & 0xFFFFFF, _u32(data, 4)
    at = 8 + (4 if flags & _DATA_OFFSET else 0)
    first_flags = default_flags
    if flags & _FIRST_FLAGS:
        first_flags = _u32(data, at)
        at += 4
    fields = [field for field in (_DURATION, _SIZE, _FLAGS, _COMPOSITION_OFFSET) if flags & field]
    stride = 4 * len(fields)
    if at + stride * count > len(data):
        raise BadMp4("a trun that is shorter than its samples")
    if not count:
        return 0, None
    if flags & _FLAGS and not flags & _FIRST_FLAGS:
        first_flags = _u32(data, at + 4 * fields.index(_FLAGS))
    if flags & _DURATION:
        return sum(_u32(data, at + stride * index) for index in range(count)), first_flags
    return count * default_duration, first_flags
