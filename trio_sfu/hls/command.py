"""FFmpeg's command line: composition, mixing, encoding. Pure; used by the pipeline.

Every input is scaled and padded to its tile by filters that follow a change of resolution frame by frame; with
``-reinit_filter 0`` FFmpeg does not build the graph anew for it, which would cost the others their state. No input ever
stops (:mod:`trio_sfu.hls.feed`), so nothing here waits for anybody.

**Who is large** changes while FFmpeg runs. Places then have fixed sizes, and each takes its pictures, before they are
scaled, from whom its ``streamselect`` says. One command (:func:`enlarge`) reaches all of these filters. Some may
have done the next picture already: for so long somebody may be seen twice.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trio_sfu.hls.layout import Tile, stage, tiles
from trio_sfu.hls.options import HlsOptions

__all__ = ["Input", "enlarge", "ffmpeg_command"]

# A receive queue for some bursts of keyframes: what overflows it is lost.
_SOCKET_BUFFER: Final = 4_194_304
_SAMPLE_RATE: Final = 48_000
# How often FFmpeg looks for a command, in seconds: ten times a second is the most that it does.
_COMMAND_SECONDS: Final = 0.1
_LONGEST_NAME: Final = 40
_NAME_KEY: Final = "participant"


@dataclass(frozen=True, slots=True)
class Input:
    """What is known of a participant. The SDP names their audio, then their video where they have any."""

    name: str | None
    video: bool


def ffmpeg_command(
    ffmpeg: str, sdp: str, inputs: Sequence[Input], options: HlsOptions, large: int | None = None
) -> list[str]:
    """The arguments, the program first. ``sdp``: the path of the description; the output is standard output.

    ``large``: who of those with video is large at first; :func:`enlarge` on standard input changes that. None: a grid,
    whatever ``options`` say, and FFmpeg leaves standard input alone.

    Fragmented MP4 comes out, with a fragment for each frame. Raises ValueError where there is no picture to make.
    """
    video = _grid(inputs, options) if large is None else _stage(inputs, options, large)
    graph = [video, _audio_graph(len(inputs))]
    # It looks for commands as often as it would show statistics, and it does so without showing any.
    control = ["-nostdin"] if large is None else ["-stats_period", str(_COMMAND_SECONDS)]
    return [
        ffmpeg,
        *("-hide_banner", "-nostats", *control, "-loglevel", "level+warning"),
        # Receiving. What the feeds send is in order and complete: there is nothing to wait for.
        *("-protocol_whitelist", "file,udp,rtp", "-localaddr", "127.0.0.1"),
        *("-buffer_size", str(_SOCKET_BUFFER), "-reorder_queue_size", "0", "-max_delay", "0"),
        *("-analyzeduration", "1000000", "-probesize", "500000", "-fpsprobesize", "0"),
        *("-flags", "low_delay", "-threads", "1", "-reinit_filter", "0"),
        *("-f", "sdp", "-i", sdp),
        *("-filter_complex", ";".join(graph), "-map", "[v]", "-map", "[a]"),
        *_encoder(options),
        *("-c:a", "aac", "-b:a", str(options.audio_bitrate), "-ar", str(_SAMPLE_RATE), "-ac", "2"),
        # One fragment a frame. `frag_every_frame` should say the same, and writes broken durations (FFmpeg 9.0).
        *("-f", "mp4", "-movflags", "+empty_moov+default_base_moof", "-frag_duration", "1", "-flush_packets", "1"),
        "pipe:1",
    ]


def _encoder(options: HlsOptions) -> list[str]:
    # A keyframe begins each segment, and none comes in between.
    group = str(round(options.segment_seconds * options.frame_rate))
    rate = str(options.video_bitrate)
    return [
        *("-c:v", "libx264", "-preset", "superfast", "-tune", "zerolatency", "-profile:v", "main"),
        *("-g", group, "-keyint_min", group, "-sc_threshold", "0"),
        *("-b:v", rate, "-maxrate", rate, "-bufsize", rate, "-r", str(options.frame_rate)),
    ]


def _grid(inputs: Sequence[Input], options: HlsOptions) -> str:
    """Everybody has a place of their own."""
    shown = [each for each in inputs if each.video]
    places = tiles(len(shown), options.width, options.height)
    chains = []
    for index, (each, tile) in enumerate(zip(shown, places, strict=True)):
        steps = [*_fit(tile), _steady(options), "format=yuv420p"]
        if options.show_names and each.name:
            steps.append(
                _name(f"expansion=none:text='{_escape(each.name[:_LONGEST_NAME])}'", tile.height, options.font)
            )
        chains.append(f"[0:v:{index}]{','.join(steps)}[v{index}]")
    if len(shown) == 1:
        return chains[0].removesuffix("[v0]") + "[v]"
    return ";".join([*chains, _stack(places, options)])


def _stage(inputs: Sequence[Input], options: HlsOptions, large: int) -> str:
    """The first place is large; each of the others is its participant's, or the first one's while that one is large.

    One ``streamselect`` for all places would do, but FFmpeg (9.0) aborts where it has more than one output. So each has
    its own, and its inputs are such that one number, who is large, is right for all of them.
    """
    shown = [each for each in inputs if each.video]
    count = len(shown)
    if count == 1:
        return _grid(inputs, options)
    chains = []
    for index, each in enumerate(shown):
        steps = ["format=yuv420p", _steady(options)]
        if options.show_names and each.name:
            # The name goes with the pictures, wherever they are shown.
            steps.append(f"metadata=mode=add:key={_NAME_KEY}:value='{_escape(each.name[:_LONGEST_NAME])}'")
        copies = [(place, choice) for place in range(count) for choice in range(count) if _who(place, choice) == index]
        outputs = "".join(f"[c{place}_{choice}]" for place, choice in copies)
        chains.append(f"[0:v:{index}]{','.join(steps)},split={len(copies)}{outputs}")
    places = stage(count, options.width, options.height)
    for place, tile in enumerate(places):
        steps = [f"streamselect=inputs={count}:map={large}", *_fit(tile), "format=yuv420p"]
        if options.show_names:
            steps.append(_name(f"text='%{{metadata\\:{_NAME_KEY}}}'", tile.height, options.font))
        sources = "".join(f"[c{place}_{choice}]" for choice in range(count))
        chains.append(f"{sources}{','.join(steps)}[v{place}]")
    return ";".join([*chains, _stack(places, options)])


def _who(place: int, large: int) -> int:
    """Whose pictures a place takes while ``large`` is in the first one."""
    if place == 0:
        return large
    return 0 if place == large else place


def enlarge(large: int) -> str:
    """The line on FFmpeg's standard input that changes who is large; see :func:`ffmpeg_command`."""
    # "C": for all filters of that name, "-1": now.
    return f"Cstreamselect -1 map {large}\n"


def _fit(tile: Tile) -> list[str]:
    """Filters that make any picture one of the tile's size."""
    size = f"{tile.width}:{tile.height}"
    return [
        f"scale={size}:force_original_aspect_ratio=decrease:force_divisible_by=2:flags=bilinear",
        f"pad={size}:(ow-iw)/2:(oh-ih)/2:eval=frame",
        "setsar=1",
    ]


def _steady(options: HlsOptions) -> str:
    return f"fps={options.frame_rate}:start_time=0"


def _stack(places: Sequence[Tile], options: HlsOptions) -> str:
    sources = "".join(f"[v{index}]" for index in range(len(places)))
    layout = "|".join(f"{tile.x}_{tile.y}" for tile in places)
    # The last row may leave room to the right and below: the canvas is padded to its full size.
    stacked = f"{sources}xstack=inputs={len(places)}:layout={layout}:fill=black"
    return f"{stacked},pad={options.width}:{options.height}[v]"


def _name(text: str, height: int, font: str | None) -> str:
    """A name at the lower left of the tile; ``text`` is the filter's option. No name leaves no box."""
    source = f":fontfile='{_escape(font)}'" if font else ""
    size = max(12, height // 18)
    return (
        f"drawtext={text}{source}:fontsize={size}:fontcolor=white:box=1:boxcolor=black@0.5:"
        f"boxborderw={size // 3}:x=if(tw\\,{size}\\,-9*{size}):y=h-th-{size}"
    )


def _escape(text: str) -> str:
    """A text within single quotes of a filter's option: neither quoting level knows an escape within quotes."""
    plain = "".join(letter if letter.isprintable() else " " for letter in text)
    # Left of the quote the graph's parser sees '…'\\\''…': the option's parser then gets \' and makes it '.
    return plain.replace("\\", "\\\\").replace("'", "'\\\\\\''").replace(":", "\\:").replace("%", "\\%")


def _audio_graph(count: int) -> str:
    # `first_pts=0` fills up what a track begins later than the others; `async` follows the timestamps from then on.
    chains = [f"[0:a:{index}]aresample={_SAMPLE_RATE}:async=1:first_pts=0[a{index}]" for index in range(count)]
    sources = "".join(f"[a{index}]" for index in range(count))
    # Without normalisation nobody gets quieter as others come; the limiter keeps the sum below clipping.
    mixed = f"{sources}amix=inputs={count}:normalize=0:dropout_transition=0" if count > 1 else "[a0]anull"
    return ";".join([*chains, f"{mixed},alimiter=limit=0.95:level=0:latency=1[a]"])
