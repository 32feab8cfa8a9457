"""Bytes to values and back: pure functions and frozen values; malformed input raises BadPacket and nothing else."""
