"""A self-hosted WebRTC conference server (SFU) on Trio."""

__version__ = "0.1.0"
