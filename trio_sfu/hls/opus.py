"""What an audio feed has to know of Opus packets (RFC 6716): how long they last, and how silence is written."""

from typing import Final

__all__ = ["SAMPLE_RATE", "SILENCE", "duration"]

SAMPLE_RATE: Final = 48_000
"""The RTP clock rate, whatever the audio's bandwidth (RFC 7587, section 4.1)."""

# RFC 6716, section 3.1, table 2: samples in a frame, by configuration.
_SILK: Final = (480, 960, 1920, 2880)
_FRAME: Final = (*_SILK * 3, *(480, 960) * 2, *(120, 240, 480, 960) * 4)
_MOST: Final = 5760  # 120 ms, requirement R5 of section 3.4

SILENCE: Final = ((960, b"\xf8\xff\xfe"), (480, b"\xf0\xff\xfe"), (240, b"\xe8\xff\xfe"), (120, b"\xe0\xff\xfe"))
"""Packets of full-band silence with the samples they last, the longest first."""


def duration(packet: bytes) -> int:
    """How many samples a packet lasts (section 3.2); 0 for one that is none."""
    if not packet:
        return 0
    head = packet[0]
    code = head & 3
    if code < 3:
        count = 1 if code == 0 else 2
    elif len(packet) > 1:
        count = packet[1] & 0x3F
    else:
        return 0
    samples = _FRAME[head >> 3] * count
    return samples if samples <= _MOST else 0
