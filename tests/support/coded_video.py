"""Real video for tests of what goes to a decoder: encoded by FFmpeg, in RTP payloads and out of them, and decoded."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Final, NamedTuple

import av
from av.codec.context import Flags
from imageio_ffmpeg import get_ffmpeg_exe

_SIZE: Final = 500  # bytes of a frame in one payload, so that most frames need several
_DECODERS: Final = {"VP8": "vp8", "VP9": "vp9", "H264": "h264", "AV1": "libdav1d"}


@cache
def encode(codec: str, options: str, *, frames: int = 24, size: str = "176x144") -> tuple[bytes, ...]:
    """Access units of a moving picture with some noise: a frame each (of AV1: a temporal unit)."""
    container = "h264" if codec == "H264" else "ivf"
    command = (
        f"-v error -f lavfi -i testsrc2=s={size}:r=30,noise=alls=4:allf=t:all_seed=7 -frames:v {frames} "
        f"-pix_fmt yuv420p {options} -threads 1 -f {container} -"
    )
    data = subprocess.run([get_ffmpeg_exe(), *command.split()], capture_output=True, check=True).stdout
    return tuple(_access_units(data) if codec == "H264" else _ivf_frames(data))


def _ivf_frames(data: bytes) -> Iterable[bytes]:
    at = 32
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "little")
        yield data[at + 12 : at + 12 + size]
        at += 12 + size


def _nal_units(data: bytes) -> list[bytes]:
    return [each.strip(b"\x00") for each in data.split(b"\x00\x00\x01")[1:]]


def _access_units(data: bytes) -> Iterable[bytes]:
    """Of an H.264 byte stream: one ends where a slice with first_mb_in_slice 0, or what precedes one, begins."""
    unit: list[bytes] = []
    coded = False
    for nal in _nal_units(data):
        slice_ = nal[0] & 0x1F in (1, 5)
        if coded and (not slice_ or nal[1] & 0x80):
            yield _byte_stream(unit)
            unit, coded = [], False
        unit.append(nal)
        coded = coded or slice_
    yield _byte_stream(unit)


def _byte_stream(nals: Iterable[bytes]) -> bytes:
    return b"".join(b"\x00\x00\x00\x01" + nal for nal in nals)


# -- into RTP payloads and out of them ---


def packetize(codec: str, frame: bytes, number: int = 0) -> list[bytes]:
    """The RTP payloads of one access unit as Chromium would send them; ``number`` becomes the picture id."""
    match codec:
        case "VP8":  # X; I, L and T; a picture id of 15 bits, TL0PICIDX, TID
            head = bytes((0x80 | number >> 8 & 0x7F, number & 0xFF, number & 0xFF, 0x20))
            parts = _cut(frame)
            return [bytes((0x80 if at else 0x90, 0xE0)) + head + part for at, part in enumerate(parts)]
        case "VP9":  # I, P, L, B and E, not flexible; a picture id of 15 bits, layer indices, TL0PICIDX
            head = bytes((0x80 | number >> 8 & 0x7F, number & 0xFF, 0, number & 0xFF))
            parts = _cut(frame)
            last = len(parts) - 1
            predicted = 0x40 if number else 0
            return [
                bytes((0xA0 | predicted | (0 if at else 0x08) | (0x04 if at == last else 0),)) + head + part
                for at, part in enumerate(parts)
            ]
        case "H264":
            return _h264_payloads(_nal_units(frame))
        case _:
            return _av1_payloads(_obus(frame))


def depacketize(codec: str, payloads: Sequence[bytes]) -> bytes:
    """The access unit of some RTP payloads, as a decoder takes it."""
    match codec:
        case "VP8":
            return b"".join(each[6 if each[0] & 0x80 else 1 :] for each in payloads)
        case "VP9":
            return b"".join(each[5 if each[0] & 0x80 else 1 :] for each in payloads)
        case "H264":
            return _byte_stream(_h264_units(payloads))
        case _:
            return b"\x12\x00" + b"".join(
                bytes((obu[0] | 0x02,)) + _leb128(len(obu) - 1) + obu[1:] for obu in _av1_units(payloads)
            )


def _cut(data: bytes) -> list[bytes]:
    return [data[at : at + _SIZE] for at in range(0, len(data), _SIZE)]


def _h264_payloads(nals: list[bytes]) -> list[bytes]:
    payloads = []
    sets = [nal for nal in nals if nal[0] & 0x1F in (7, 8)]
    if sets:
        payloads.append(b"\x78" + b"".join(len(nal).to_bytes(2) + nal for nal in sets))
    for nal in nals:
        if nal in sets:
            continue
        if len(nal) <= _SIZE:
            payloads.append(nal)
            continue
        parts = _cut(nal[1:])
        for at, part in enumerate(parts):
            flags = (0x80 if at == 0 else 0) | (0x40 if at == len(parts) - 1 else 0)
            payloads.append(bytes((nal[0] & 0xE0 | 28, flags | nal[0] & 0x1F)) + part)
    return payloads


def _h264_units(payloads: Sequence[bytes]) -> list[bytes]:
    units: list[bytes] = []
    for each in payloads:
        kind = each[0] & 0x1F
        if kind == 24:
            at = 1
            while at < len(each):
                size = int.from_bytes(each[at : at + 2])
                units.append(each[at + 2 : at + 2 + size])
                at += 2 + size
        elif kind == 28 and each[1] & 0x80:
            units.append(bytes((each[0] & 0xE0 | each[1] & 0x1F,)) + each[2:])
        elif kind == 28:
            units[-1] += each[2:]
        else:
            units.append(each)
    return units


def _leb128(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_leb128(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        value |= (data[at] & 0x7F) << shift
        shift += 7
        at += 1
        if not data[at - 1] & 0x80:
            return value, at


def _obus(unit: bytes) -> list[bytes]:
    """The OBUs of a temporal unit without their sizes, and without the temporal delimiter."""
    found = []
    at = 0
    while at < len(unit):
        assert unit[at] & 0x06 == 0x02  # a size, no extension
        size, begin = _read_leb128(unit, at + 1)
        if unit[at] >> 3 & 15 != 2:
            found.append(bytes((unit[at] & ~0x02,)) + unit[begin : begin + size])
        at = begin + size
    return found


def _av1_payloads(obus: list[bytes]) -> list[bytes]:
    """Small OBUs share the payload of the one after them, large ones are cut."""
    payloads = []
    first = 0x08 if obus[0][0] >> 3 & 15 == 1 else 0
    together: list[bytes] = []
    for obu in obus:
        if len(obu) < 30 and obu is not obus[-1] and len(together) < 2:
            together.append(obu)
            continue
        parts = _cut(obu)
        for at, part in enumerate(parts):
            head = (0x80 if at else 0) | (0x40 if at < len(parts) - 1 else 0) | len(together) + 1 << 4 | first
            front = b"".join(_leb128(len(each)) + each for each in together)
            payloads.append(bytes((head,)) + front + part)
            together, first = [], 0
    return payloads


def _av1_units(payloads: Sequence[bytes]) -> list[bytes]:
    units: list[bytes] = []
    for each in payloads:
        at, number, count = 1, 0, each[0] >> 4 & 3
        while at < len(each):
            number += 1
            size = len(each) - at
            if number != count:
                size, at = _read_leb128(each, at)
            if number == 1 and each[0] & 0x80:
                units[-1] += each[at : at + size]
            else:
                units.append(each[at : at + size])
            at += size
    return units


# -- decoding ---


class Picture(NamedTuple):
    """What a decoder gave: which access unit it was for, and the MD5 of its samples (as FFmpeg's framemd5 says it)."""

    number: int
    width: int
    height: int
    digest: str


def decode(codec: str, frames: Iterable[bytes]) -> list[Picture]:
    """All pictures, in the order in which they came out, from a decoder that does not wait for more than it needs."""
    decoder = av.CodecContext.create(_DECODERS[codec], "r")
    assert isinstance(decoder, av.VideoCodecContext)
    decoder.flags |= Flags.low_delay
    decoder.thread_count = 1
    decoder.options = {"err_detect": "explode"} if codec == "H264" else {}
    pictures = []
    for number, frame in enumerate(frames):
        packet = av.Packet(frame)
        packet.pts = packet.dts = number
        pictures += [_picture(each) for each in decoder.decode(packet)]
    return pictures + [_picture(each) for each in decoder.decode(None)]


def _picture(frame: av.VideoFrame) -> Picture:
    assert frame.pts is not None
    digest = hashlib.md5(usedforsecurity=False)
    octets = (frame.format.components[0].bits + 7) // 8
    for plane in frame.planes:
        rows = memoryview(plane)
        for at in range(0, plane.height * plane.line_size, plane.line_size):
            digest.update(rows[at : at + octets * plane.width])
    return Picture(frame.pts, frame.width, frame.height, digest.hexdigest())
