"""A live LL-HLS stream for the watch page's tests: FFmpeg makes its pictures beforehand, a clock publishes them.

It answers as the server's ``/hls/<room>/`` does: parts and segments of fragmented MP4, blocking reloads, a window, a
discontinuity with a new init segment for each run, an end. What a test does to it (:meth:`Origin.restart`,
:meth:`Origin.halt`, ...) is what pipelines and servers do.
"""

import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import imageio_ffmpeg
from playwright.sync_api import Page, Route

PART_SECONDS = 0.2
PARTS_A_SEGMENT = 5
WINDOW = 20
"""Segments of one second that the playlist goes back."""
LONGEST_BLOCK_SECONDS = 6.0
MATERIAL_SECONDS = 40


@dataclass(frozen=True, slots=True)
class Run:
    """What one FFmpeg makes: an init segment, and parts that each begin with a keyframe."""

    init: bytes
    parts: tuple[bytes, ...]
    durations: tuple[float, ...]


def make_run(folder: Path, source: str, tone: int) -> Run:
    """Encode H.264 and AAC from one of FFmpeg's test pictures and a tone of ``tone`` hertz."""
    folder.mkdir()
    rate = 30
    key_interval = round(rate * PART_SECONDS)
    # fmt: off
    subprocess.run(
        [
            imageio_ffmpeg.get_ffmpeg_exe(), "-loglevel", "error", "-t", str(MATERIAL_SECONDS),
            "-f", "lavfi", "-i", f"{source}:rate={rate}",
            "-f", "lavfi", "-i", f"sine=frequency={tone}:sample_rate=48000",
            "-shortest", "-c:v", "libx264", "-preset", "ultrafast", "-pix_fmt", "yuv420p", "-g", str(key_interval),
            "-keyint_min", str(key_interval), "-sc_threshold", "0", "-c:a", "aac", "-b:a", "64k",
            "-f", "hls", "-hls_time", str(PART_SECONDS), "-hls_list_size", "0", "-hls_segment_type", "fmp4",
            "-hls_segment_filename", str(folder / "%d.m4s"), str(folder / "index.m3u8"),
        ],
        check=True,
    )
    # fmt: on
    listed = re.findall(r"#EXTINF:([\d.]+),\n(.+)", (folder / "index.m3u8").read_text())
    return Run(
        (folder / "init.mp4").read_bytes(),
        tuple((folder / name).read_bytes() for _, name in listed),
        tuple(float(duration) for duration, _ in listed),
    )


@dataclass(slots=True)
class Segment:
    run: int
    discontinuity: bool
    start: float
    parts: list[tuple[bytes, float]] = field(default_factory=list)
    whole: bool = False


class Origin:
    """A room's stream. All methods may be called from any thread; nothing is there before :meth:`go_live`."""

    def __init__(self, runs: list[Run]) -> None:
        self._runs = runs
        self._changed = threading.Condition()
        self._run = 0
        self._next_part = 0
        self._first = 0
        self._segments: list[Segment] = []
        self._live = False
        self._there = False
        self._ended = False
        self._closed = False
        self._token = 0
        self._spoilt = 0
        self.reason = ""
        """If not empty: why there can be no stream, which is all it answers then."""
        self._publisher = threading.Thread(target=self._publish, daemon=True)
        self._publisher.start()

    def go_live(self, *, since: int = 0) -> None:
        """Begin a stream; one after another goes on counting and looks different.

        It may have begun some segments ago: these are there at once.
        """
        with self._changed:
            if self._there:
                self._begin_run()
            self._first += len(self._segments)
            self._segments.clear()
            self._token += 1
            self._live = self._there = True
            self._ended = False
            parts = since * PARTS_A_SEGMENT
            began = time.time() - sum(self._runs[self._run].durations[:parts])
            for _ in range(parts):
                self._add_part(began)

    def restart(self) -> None:
        """The pipeline starts anew: another picture of another size, and a new init segment."""
        with self._changed:
            self._begin_run()

    def spoil(self, parts: int) -> None:
        """The next parts look right from outside, and no decoder can make anything of them."""
        with self._changed:
            self._spoilt = parts

    def halt(self) -> None:
        """Nothing new comes."""
        with self._changed:
            self._live = False

    def go_on(self) -> None:
        """It does again."""
        with self._changed:
            self._live = True

    def end(self) -> None:
        """The stream is over."""
        with self._changed:
            self._live = False
            self._ended = True
            if self._segments:
                self._segments[-1].whole = True
            self._changed.notify_all()

    def forget(self) -> None:
        """The server was started anew: it knows no stream, and will count from zero."""
        with self._changed:
            self._live = self._there = False
            self._begin_run()
            self._first = 0
            self._segments.clear()
            self._changed.notify_all()

    def close(self) -> None:
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._publisher.join()

    def _begin_run(self) -> None:
        if self._segments:
            self._segments[-1].whole = True
        self._run = (self._run + 1) % len(self._runs)
        self._next_part = 0

    def _publish(self) -> None:
        due = time.monotonic()
        with self._changed:
            while not self._closed:
                run = self._runs[self._run]
                due = max(due + run.durations[self._next_part % len(run.parts)], time.monotonic())
                self._wait_until(due)
                if self._live and run is self._runs[self._run]:
                    self._add_part(time.time())

    def _wait_until(self, due: float) -> None:
        while not self._closed and (left := due - time.monotonic()) > 0:
            self._changed.wait(left)

    def _add_part(self, now: float) -> None:
        run = self._runs[self._run]
        part = self._next_part % len(run.parts)
        last = self._segments[-1] if self._segments else None
        if last is None or last.whole:
            if last is None or last.run != self._run or part == 0:
                self._segments.append(Segment(self._run, last is not None, now))
            else:
                start = last.start + sum(duration for _, duration in last.parts)
                self._segments.append(Segment(self._run, False, start))
            if len(self._segments) > WINDOW:
                self._first += 1
                del self._segments[0]
        segment = self._segments[-1]
        data = run.parts[part]
        if self._spoilt:
            self._spoilt -= 1
            inside = data.index(b"mdat") + 4
            data = data[:inside] + b"\xff" * (len(data) - inside)
        segment.parts.append((data, run.durations[part]))
        segment.whole = len(segment.parts) == PARTS_A_SEGMENT
        self._next_part = part + 1
        self._changed.notify_all()

    def answer(self, tail: str, query: dict[str, list[str]]) -> tuple[int, str, bytes]:
        """Status, content type and body for what comes after ``/hls/<room>/``; waits as a blocking reload does."""
        with self._changed:
            if self.reason:
                return 503, "text/plain; charset=utf-8", self.reason.encode()
            if tail == "index.m3u8" and self._there:
                return self._playlist(query)
            media = re.fullmatch(r"(\d+)/(?:init(\d+)\.mp4|(\d+)(?:\.(\d+))?\.m4s)", tail)
            if media and int(media[1]) == self._token and self._there:
                return self._media(media)
        return 404, "text/plain; charset=utf-8", b"There is no such thing.\n"

    def _media(self, media: re.Match[str]) -> tuple[int, str, bytes]:
        if media[2]:
            return 200, "video/mp4", self._runs[int(media[2])].init
        index = int(media[3]) - self._first
        if 0 <= index < len(self._segments):
            parts = [data for data, _ in self._segments[index].parts]
            if media[4] is None:
                return 200, "video/mp4", b"".join(parts)
            if int(media[4]) < len(parts):
                return 200, "video/mp4", parts[int(media[4])]
        return 404, "text/plain; charset=utf-8", b"There is no such thing.\n"

    def _playlist(self, query: dict[str, list[str]]) -> tuple[int, str, bytes]:
        if "_HLS_msn" in query:
            wanted = int(query["_HLS_msn"][0]), int(query.get("_HLS_part", ["0"])[0])
            if wanted[0] > self._first + len(self._segments) + 2:
                return 400, "text/plain; charset=utf-8", b"That is too far ahead.\n"
            self._changed.wait_for(lambda: self._has(*wanted), LONGEST_BLOCK_SECONDS)
            if not self._there:
                return 404, "text/plain; charset=utf-8", b"There is no such thing.\n"
        return 200, "application/vnd.apple.mpegurl", self._rendered().encode()

    def _has(self, msn: int, part: int) -> bool:
        if self._ended or self._closed or not self._there:
            return True
        index = msn - self._first
        if index < len(self._segments) - 1:
            return True
        return index == len(self._segments) - 1 and len(self._segments[index].parts) > part

    def _rendered(self) -> str:
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:9",
            "#EXT-X-TARGETDURATION:1",
            f"#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={PART_SECONDS * 3.5:.3f}",
            "#EXT-X-PART-INF:PART-TARGET=0.240",
            f"#EXT-X-MEDIA-SEQUENCE:{self._first}",
            "#EXT-X-INDEPENDENT-SEGMENTS",
        ]
        run = None
        for msn, segment in enumerate(self._segments, self._first):
            if segment.discontinuity:
                lines.append("#EXT-X-DISCONTINUITY")
            if segment.run != run or segment.discontinuity:
                run = segment.run
                lines.append(f'#EXT-X-MAP:URI="{self._token}/init{run}.mp4"')
            started = datetime.fromtimestamp(segment.start, UTC).isoformat(timespec="milliseconds")
            lines.append(f"#EXT-X-PROGRAM-DATE-TIME:{started}")
            if not self._ended and msn >= self._first + len(self._segments) - 3:
                for number, (_, duration) in enumerate(segment.parts):
                    uri = f"{self._token}/{msn}.{number}.m4s"
                    lines.append(f'#EXT-X-PART:DURATION={duration:.5f},INDEPENDENT=YES,URI="{uri}"')
            if segment.whole:
                lines += [f"#EXTINF:{sum(duration for _, duration in segment.parts):.5f},", f"{self._token}/{msn}.m4s"]
        if self._ended:
            lines.append("#EXT-X-ENDLIST")
        else:
            open_segment = bool(self._segments) and not self._segments[-1].whole
            msn = self._first + len(self._segments) - open_segment
            number = len(self._segments[-1].parts) if open_segment else 0
            # Never left out: without it hls.js takes the last whole segment for the one to come.
            lines.append(f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{self._token}/{msn}.{number}.m4s"')
        return "\n".join(lines) + "\n"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: "_Server"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        status, content_type, body = self.server.origin.answer(url.path.split("/", 3)[3], parse_qs(url.query))
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    origin: Origin

    def handle_error(self, request: object, client_address: object) -> None:
        """Players drop connections that they no longer need; that is no error."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            raise


@dataclass(slots=True)
class Served:
    """An origin that pages can reach."""

    origin: Origin
    port: int
    reachable: bool = True

    def take_over(self, page: Page) -> None:
        """What the page asks of ``/hls/`` goes here; to the page, this is its own server."""

        def pass_on(route: Route) -> None:
            if self.reachable:
                route.continue_(url=urlsplit(route.request.url)._replace(netloc=f"127.0.0.1:{self.port}").geturl())
            else:
                route.abort("connectionrefused")

        page.route("**/hls/**", pass_on)


@contextmanager
def served(runs: list[Run]) -> Iterator[Served]:
    """An origin on a port of its own."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.origin = Origin(runs)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield Served(server.origin, server.server_port)
        finally:
            server.origin.close()
            server.shutdown()
            thread.join()
