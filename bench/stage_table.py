"""Which function belongs to which stage of forwarding. Pure; a test holds it against the server's source.

Used by :mod:`bench.stage_server`, which samples, and :mod:`bench.stages`, which shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

STAGES: Final = (
    "receive",
    "demux",
    "unprotect",
    "parse",
    "route",
    "rewrite",
    "protect",
    "send",
    "RTCP in",
    "timers",
    "trio",
    "signalling",
    "other",
)

# Whatever a function does below one of these belongs to it.
ABOVE: Final = {
    ("media/rtp_session.py", "receive_rtcp"): "RTCP in",
    ("transport/srtp.py", "unprotect_rtcp"): "RTCP in",
    ("media/rtp_session.py", "tick"): "timers",
    ("media/router.py", "tick"): "timers",
    ("transport/webrtc.py", "_handle_timers"): "timers",
    ("transport/webrtc.py", "_next_timer"): "timers",
}

# A function that is more than its file; the innermost frame that is known decides.
FUNCTIONS: Final = {
    ("transport/mmsg.py", "receive"): "receive",
    ("transport/mmsg.py", "sizes"): "receive",
    ("transport/mmsg.py", "sources"): "demux",
    ("transport/udp.py", "run"): "receive",
    ("transport/udp.py", "handle"): "demux",
    ("transport/udp.py", "run_batch"): "demux",
    ("transport/srtp.py", "unprotect"): "unprotect",
    ("transport/srtp.py", "protect_run"): "protect",
    ("transport/webrtc.py", "receive_srtp"): "demux",
    ("media/consumer.py", "forward"): "rewrite",
}

FILES: Final = {
    "transport/mmsg.py": "send",
    "transport/udp.py": "send",
    "transport/srtp.py": "protect",
    "transport/webrtc.py": "route",
    "wire/demux.py": "demux",
    "wire/rtp.py": "parse",
    "media/packet.py": "rewrite",
    "media/layout.py": "rewrite",
    "media/consumer.py": "route",
    "media/outgoing_numbers.py": "route",
    "media/rtp_session.py": "route",
    "media/incoming_stream.py": "route",
    "media/packet_cache.py": "route",
    "media/reception.py": "route",
    "media/arrivals.py": "route",
    "media/nack.py": "route",
    "media/sequence.py": "route",
    "media/producer.py": "route",
    "wire/rtcp.py": "RTCP in",
    "wire/rtcp_feedback.py": "RTCP in",
    "wire/transport_feedback.py": "RTCP in",
    "wire/stun.py": "timers",
    "protocols/ice.py": "timers",
    "rooms/room.py": "timers",
    "rooms/peer.py": "timers",
    "rooms/speakers.py": "timers",
}

FOLDERS: Final = {"signalling/": "signalling", "protocols/": "signalling", "rooms/": "signalling"}


def place(filename: str) -> str:
    """A path below the package, or "trio" for anything of trio's, or "" for the rest."""
    _, found, tail = filename.rpartition("/trio_sfu/")
    if found:
        return tail
    return "trio" if "/trio/" in filename or "/outcome/" in filename else ""


def stage_of(frames: Iterable[tuple[str, str]]) -> str:
    """The stage of a stack of (place, function), the innermost first."""
    found = ""
    for name, function in frames:
        above = ABOVE.get((name, function))
        if above is not None:
            return above
        if found:
            continue
        if name == "trio":
            found = "trio"
            continue
        if not name:
            continue
        found = FUNCTIONS.get((name, function)) or FILES.get(name, "")
        if not found:
            found = next((stage for folder, stage in FOLDERS.items() if name.startswith(folder)), "")
    return found or "other"
