"""Sockets and timers under the media layer."""
