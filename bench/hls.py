"""What the live stream of a room does for its viewers, and what it costs: real Chromium, the real server and FFmpeg.

    python -m bench.hls [--hls-minutes 10] [--participants 1 2 4]

Everything runs on this machine, on loopback, the server with its default settings. A Markdown table goes to standard
output. What is measured, of participants who send 320x240 (VP8, 30 pictures a second; 15 for start-up and cost):

start-up: from just before the call that makes a participant's second producer, with the watch page open already, to the
playlist and to the first picture there. The browser's own negotiation is in it.

glass to glass: a picture says in blocks when it was drawn; a viewer reads it ten times a second from what is shown.

lip-sync: a source that turns white and beeps at the same moment, once a second; the segments are decoded, and the
beep's beginning compared with the flash's. Positive: the sound is late.

restarts: somebody joins and leaves while a viewer watches another's time code.

cost: CPU seconds a second of the server and its FFmpeg, from /proc.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Final

from bench.hls_pages import ASPECT, Pages, chromium, enter, wait
from bench.hls_stream import Follower, Run, offsets, picture_of, times, wait_for_playlist
from bench.report import Section, run
from bench.server_process import CpuTime, resident_memory, running_server
from trio_sfu.hls.layout import tiles
from trio_sfu.hls.options import HlsOptions

_OPTIONS: Final = HlsOptions()
_CLOCK: Final = {"capture": "clock", "frameRate": 30}
_FLASH: Final = {"capture": "flash", "frameRate": 30}
_MOVING: Final = {"capture": "canvas", "frameRate": 15}
_TONE: Final = {"capture": "tone"}
_START_SECONDS: Final = 20.0
_SETTLED_SECONDS: Final = 5.0
_COST_SECONDS: Final = 15.0
_RESTART_SECONDS: Final = 6.0
PARTS: Final = ("start-up", "glass-to-glass", "lip-sync", "restarts", "cost")


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; ``target`` is empty where there is none."""

    what: str
    measured: str
    target: str = ""


def start_up(pages: Pages, url: str, repetitions: int) -> Iterator[Row]:
    """How soon the first participant's stream is there."""
    playlists, pictures, stalls = [], [], []
    for _ in range(repetitions):
        user = pages.user()
        room = enter(user, None)
        viewer = pages.viewer(room)
        user.call("produce", {"kind": "audio", **_TONE})
        began = time.time()
        user.begin("produce", {"kind": "video", "codec": "VP8", "width": 320, "height": 240, **_MOVING})
        playlists.append(wait_for_playlist(_playlist(url, room), _START_SECONDS) - began)
        pictures.append(viewer.wait_playing() - began)
        user.end()
        viewer.forget()
        viewer.page.wait_for_timeout(_SETTLED_SECONDS * 1000)
        stalls.append(viewer.longest_stall())
        pages.close_all()
    yield Row("second `produce` to playlist", _spread(playlists), "3 s")
    yield Row("second `produce` to first picture", _spread(pictures), "4 s")
    yield Row(f"longest stall in the {_SETTLED_SECONDS:g} s after it", _spread(stalls))


def glass_to_glass(pages: Pages, seconds: float) -> Iterator[Row]:
    """How old what a viewer sees is."""
    _, room = pages.participant(None, _CLOCK, _TONE)
    viewer = pages.viewer(room)
    viewer.wait_playing()
    viewer.page.wait_for_timeout(_SETTLED_SECONDS * 1000)
    viewer.forget()
    (tile,) = tiles(1, _OPTIONS.width, _OPTIONS.height)
    ages = sorted(viewer.latencies(seconds, picture_of(tile, ASPECT)))
    if not ages:
        raise RuntimeError("no time code could be read")
    p95 = ages[int(0.95 * len(ages))]
    text = f"median {statistics.median(ages):.2f} s, p95 {p95:.2f} s, {ages[0]:.2f} to {ages[-1]:.2f} s"
    yield Row(f"glass to glass, {len(ages)} samples in {seconds:g} s", text, "median 3 s")
    yield Row("longest stall of that viewer", f"{viewer.longest_stall():.2f} s")


def lip_sync(pages: Pages, url: str, seconds: float) -> Iterator[Row]:
    """How far apart flashes and beeps are in the segments."""
    with tempfile.TemporaryDirectory() as folder:
        user, room = pages.participant(None, _FLASH, {"capture": "flash"})
        wait_for_playlist(_playlist(url, room), _START_SECONDS)
        with Follower.following(_playlist(url, room), Path(folder)) as follower:
            wait(user, seconds)
        run = max(follower.runs, key=lambda run: len(run.pieces))
        found = offsets(run.path)
    if len(found) < 5:
        raise RuntimeError(f"{len(found)} flashes were found")
    first = found[0].at
    for minute, group in groupby(found, lambda offset: int((offset.at - first) / 60)):
        late = [offset.late * 1000 for offset in group]
        text = f"median {statistics.median(late):+.0f} ms, {min(late):+.0f} to {max(late):+.0f}"
        yield Row(f"lip-sync, minute {minute + 1} ({len(late)} flashes)", text, "±80 ms")
    slope = statistics.linear_regression([each.at for each in found], [each.late for each in found]).slope
    yield Row("lip-sync, drift", f"{slope * 60_000:+.2f} ms a minute")


def restarts(pages: Pages, url: str, rounds: int) -> Iterator[Row]:
    """What a viewer misses when somebody joins or leaves."""
    with tempfile.TemporaryDirectory() as folder:
        _, room = pages.participant(None, _CLOCK, _TONE)
        viewer = pages.viewer(room)
        viewer.wait_playing()
        viewer.page.wait_for_timeout(_SETTLED_SECONDS * 1000)
        viewer.forget()
        with Follower.following(_playlist(url, room), Path(folder)) as follower:
            for _ in range(rounds):
                second, _ = pages.participant(room, _MOVING, {**_TONE, "frequency": 660})
                viewer.page.wait_for_timeout(_RESTART_SECONDS * 1000)
                second.call("leave")
                viewer.page.wait_for_timeout(_RESTART_SECONDS * 1000)
                second.page.context.close()
        stall, picture, anew = viewer.longest_stall(), viewer.longest_picture(), viewer.begun_anew()
        gaps = [after.start - before.end for before, after in pairwise(follower.runs)]
        missing = _missing(follower.runs)
    yield Row(f"longest stall of the video's time in {len(gaps)} restarts", f"{stall:.2f} s", "2 s")
    yield Row("longest time between two pictures shown", f"{picture:.2f} s")
    yield Row("times that the player threw all away and began anew", str(anew), "0")
    yield Row("missing between two runs, by the playlist", _spread(gaps), "2 s")
    yield Row("missing between two runs, by the time code in the picture", _spread(missing), "2 s")


def cost(pages: Pages, pid: int, participants: int) -> Iterator[Row]:
    """CPU time and memory while nobody watches."""
    room: str | None = None
    for index in range(participants):
        user, room = pages.participant(room, _MOVING, {**_TONE, "frequency": 300 + 110 * index})
    wait(user, _SETTLED_SECONDS)
    (ffmpeg,) = _children(pid)
    processes = {"server": pid, "FFmpeg": ffmpeg}
    before = {name: CpuTime.read(process) for name, process in processes.items()}
    began = time.monotonic()
    wait(user, _COST_SECONDS)
    took = time.monotonic() - began
    for name, process in processes.items():
        after = CpuTime.read(process)
        share = (after.user + after.system - before[name].user - before[name].system) / took
        waited = (after.waited - before[name].waited) / took
        text = f"{share:.2f} CPU seconds a second, {resident_memory(process) / (1 << 20):.0f} MiB"
        yield Row(f"{name}, {participants} participants", f"{text} (ready but not run: {waited:.0%})")
    pages.close_all()
    _wait_quiet(pid)


def _missing(runs: Sequence[Run]) -> list[float]:
    """Seconds from the last time code of a run to the first one of the next."""
    places = [tiles(count, _OPTIONS.width, _OPTIONS.height)[0] for count in (1, 2)]
    shown = [times(run.path, [picture_of(place, ASPECT) for place in places], run.start) for run in runs]
    return [after[0] - before[-1] for before, after in pairwise(shown) if before and after]


def _children(pid: int) -> list[int]:
    """The processes that ``pid`` has started: one FFmpeg for each live room."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == pid:
            found.append(int(stat.parent.name))
    return found


def _wait_quiet(pid: int) -> None:
    """Until no stream is left of what was measured before."""
    deadline = time.monotonic() + _START_SECONDS
    while _children(pid):
        if time.monotonic() > deadline:
            raise TimeoutError("a stream goes on without its room")
        time.sleep(0.1)


def _playlist(url: str, room: str) -> str:
    return f"{url}/hls/{room}/index.m3u8"


def _spread(seconds: Sequence[float]) -> str:
    if not seconds:
        return "none found"
    return f"median {statistics.median(seconds):.2f} s, worst {max(seconds):.2f} s of {len(seconds)}"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--hls-minutes", type=float, metavar="M", help="of lip-sync; default 0.5, quick 0.2")
    parser.add_argument("--participants", type=int, nargs="+", metavar="N", help="for the cost; default 1 2 4, quick 2")
    parser.add_argument("--hls-seconds", type=float, metavar="S", help="of latency; default 30, quick 10")
    parser.add_argument("--repetitions", type=int, metavar="N", help="of the start-up; default 5, quick 1")
    parser.add_argument("--rounds", type=int, metavar="N", help="joins and leaves; default 4, quick 1")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS, help="measure no more than these")
    parser.add_argument("--hls-server-option", action="append", default=[], metavar="OPTION", help="for the server")


def sections(arguments: argparse.Namespace) -> Iterator[Section]:
    quick = arguments.quick
    minutes = arguments.hls_minutes or (0.2 if quick else 0.5)
    participants = arguments.participants or ([2] if quick else [1, 2, 4])
    seconds = arguments.hls_seconds or (10.0 if quick else 30.0)
    repetitions = arguments.repetitions or (1 if quick else 5)
    rounds = arguments.rounds or (1 if quick else 4)
    rows: list[Row] = []
    with running_server(arguments.hls_server_option) as server, chromium() as browser:
        pages = Pages(browser, server.url)
        parts: dict[str, Callable[[], Iterator[Row]]] = {
            "start-up": lambda: start_up(pages, server.url, repetitions),
            "glass-to-glass": lambda: glass_to_glass(pages, seconds),
            "lip-sync": lambda: lip_sync(pages, server.url, minutes * 60),
            "restarts": lambda: restarts(pages, server.url, rounds),
            "cost": lambda: (row for count in participants for row in cost(pages, server.pid, count)),
        }
        for name in arguments.only:
            rows += parts[name]()
            pages.close_all()
            _wait_quiet(server.pid)
    yield Section(
        "hls",
        "Live streams",
        "python -m bench.hls",
        ("what", "measured", "target"),
        [(row.what, row.measured, row.target) for row in rows],
        [f"Load after: {os.getloadavg()[0]:.1f}."],
    )


def main(arguments: list[str] | None = None) -> int:
    return run("hls", __doc__ or "", options, sections, arguments)


if __name__ == "__main__":
    sys.exit(main())
