"""Arithmetic of 16-bit RTP sequence numbers, as serial numbers (RFC 1982). Pure functions, for all of media/."""

from __future__ import annotations


def newer(a: int, b: int) -> bool:
    """Whether ``a`` comes after ``b``, both 16 bits: it is ahead by 1 … 32767.

    Of two numbers exactly half the space apart neither is newer (RFC 1982 leaves them undefined).
    """
    return 0 < (a - b & 0xFFFF) < 0x8000


def distance(a: int, b: int) -> int:
    """How far ``a`` is ahead of ``b``: -32768 … 32767, negative where it is behind. Both 16 bits or extended."""
    return (a - b + 0x8000 & 0xFFFF) - 0x8000


def extend(last_extended: int, seq: int) -> int:
    """The extended number nearest to ``last_extended`` whose low 16 bits are ``seq``.

    It is less than ``last_extended`` for an older packet, and below zero for a packet from before the first
    wrap-around: begin at ``0x10000 + seq`` where that matters.
    """
    return last_extended + (seq - last_extended + 0x8000 & 0xFFFF) - 0x8000
