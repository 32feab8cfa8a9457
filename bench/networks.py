"""What loss does to a call: two users in Chromium, each behind a relay that loses and delays, both ways.

    python -m bench.networks [--loss 1,5,10,20] [--delay 50] [--seconds 20] [--seed 1]

Prints a Markdown table with one row a loss: the worse of the two users' videos (VP8, 640x360, 30 fps), and of the two
sounds. Frames received are those decoded, as a share of those that the other user sent in the same time. Status 1 where
that is less than it should be.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from typing import Any, Final

from playwright.sync_api import Browser

from bench.hls_pages import Pages, chromium, wait
from tests.browser.quality import Heard, Quality, Seen
from tests.browser.users import User
from tests.support.relay import Relay, running_relay
from tests.support.server import Server, running_server

VIDEO: Final[dict[str, Any]] = {"capture": "canvas", "width": 640, "height": 360, "frameRate": 30, "detail": 0.05}
# A tone is coded without in-band error correction, so what is lost for good is heard. Opus asks for what is lost on
# the way to the server only where the page wants that.
AUDIO: Final[dict[str, Any]] = {"capture": "tone", "codecOptions": {"opusNack": True}}
#: Least share of the frames sent, by the share of packets lost each way.
WANTED: Final = {0.01: 0.95, 0.05: 0.90, 0.10: 0.80, 0.20: 0.60}
_SETTLE_SECONDS: Final = 5.0
_COLUMNS: Final = (
    "loss each way",
    "frames received",
    "fps sent",
    "fps received",
    "freezes",
    "longest gap",
    "NACKs",
    "RTX received",
    "PLIs",
    "jitter buffer",
    "audio made up",
    "audio's jitter buffer",
)


@dataclass(frozen=True, slots=True)
class Direction:
    """From one user to the other; ``sent`` frames a second, ``received`` their share that was decoded."""

    sent: float
    received: float
    seen: Seen
    heard: Heard


def measure(browser: Browser, loss: float, delay: float, seconds: float, seed: int) -> list[Direction]:
    """A call of two: one entry for each direction."""
    with running_server() as server, running_relay(_media(server), loss=loss, delay=delay, seed=seed) as relay:
        pages = Pages(browser, server.url)
        try:
            return _call(pages, relay, seconds)
        finally:
            pages.close_all()


def _call(pages: Pages, relay: Relay, seconds: float) -> list[Direction]:
    users = [_user(pages, relay) for _ in range(2)]
    room = users[0].call("create")
    users[1].call("join", room)
    for user in users:
        user.call("loadDevice")
        user.call("produce", {"kind": "audio", **AUDIO})
        user.call("produce", {"kind": "video", "codec": "VP8", "maxBitrate": 800_000, **VIDEO})
    for user in users:
        user.call("consumeAll", {"timeoutMs": 20_000})
        user.call("waitDecoding", {"timeoutMs": 20_000})
    wait(users[0], _SETTLE_SECONDS)  # the senders' bandwidth estimates have found their level
    qualities = [Quality(user) for user in users]
    before = [_frames_sent(user) for user in users]
    wait(users[0], seconds)
    after = [_frames_sent(user) for user in users]
    results = []
    for receiver, sender in ((1, 0), (0, 1)):
        seen, heard = qualities[receiver].seen(), qualities[receiver].heard()
        sent = after[sender] - before[sender]
        results.append(Direction(sent / seen.seconds, seen.frames / sent, seen, heard))
    return results


def _user(pages: Pages, relay: Relay) -> User:
    user = pages.user()
    user.call("mapCandidatePort", 0, relay.port)
    return user


def _frames_sent(user: User) -> int:
    videos = [each for each in user.call("stats")["producers"] if each["kind"] == "video"]
    return int(videos[0]["streams"][0]["framesSent"])


def _media(server: Server) -> tuple[str, int]:
    (port,) = server.media_ports
    return ("127.0.0.1", port)


def row(loss: float, directions: list[Direction]) -> list[str]:
    """One row of the table."""
    seen = [each.seen for each in directions]
    return [
        f"{loss:.0%}",
        f"{min(each.received for each in directions):.0%}",
        f"{min(each.sent for each in directions):.1f}",
        f"{min(each.rate for each in seen):.1f}",
        f"{max(each.freezes for each in seen)}",
        f"{max(each.longest_gap for each in seen):.2f} s",
        f"{max(each.nacks for each in seen)}",
        f"{max(each.retransmissions for each in seen)}",
        f"{max(each.plis for each in seen)}",
        f"{1000 * max(each.jitter_buffer for each in seen):.0f} ms",
        f"{max(each.heard.concealed for each in directions):.1%}",
        f"{1000 * max(each.heard.jitter_buffer for each in directions):.0f} ms",
    ]


def wanted(loss: float) -> float:
    """The least share of frames to be received at ``loss``; 0 where nothing is said of it."""
    return WANTED.get(round(loss, 4), 0.0)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.networks", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--loss", default="1,5,10,20", help="per cent each way, comma-separated")
    parser.add_argument("--delay", type=float, default=50, help="milliseconds each way")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    print("| " + " | ".join(_COLUMNS) + " |")
    print("|" + "---|" * len(_COLUMNS), flush=True)
    short = False
    with chromium() as browser:
        for loss in (float(each) / 100 for each in options.loss.split(",")):
            directions = measure(browser, loss, options.delay / 1000, options.seconds, options.seed)
            print("| " + " | ".join(row(loss, directions)) + " |", flush=True)
            short |= min(each.received for each in directions) < wanted(loss)
    return int(short)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
