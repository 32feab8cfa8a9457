"""FFmpeg's command line: composition, mixing, encoding. Pure; used by the pipeline.

Every input is scaled and padded to its tile by filters that follow a change of resolution frame by frame; with
``-reinit_filter 0`` FFmpeg does not build the graph anew for it, which would cost the others their state. No input ever
stops (:mod:`trio_sfu.hls.feed`), so nothing here waits for anybody.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from trio_sfu.hls.layout import tiles
from trio_sfu.hls.options import HlsOptions

__all__ = ["Input", "ffmpeg_command"]

# A receive queue for some bursts of keyframes: what overflows it is lost.
_SOCKET_BUFFER: Final = 4_194_304
_SAMPLE_RATE: Final = 48_000


@dataclass(frozen=True, slots=True)
class Input:
    """What is known of a participant. The SDP names their audio, then their video where they have any."""

    name: str | None
    video: bool


def ffmpeg_command(ffmpeg: str, sdp: str, inputs: Sequence[Input], options: HlsOptions) -> list[str]:
    """The arguments, the program first. ``sdp``: the path of the description; the output is standard output.

    Fragmented MP4 comes out, with a fragment for each frame. Raises ValueError where there is no picture to make.
    """
    graph = [_video_graph(inputs, options), _audio_graph(len(inputs))]
    return [
        ffmpeg,
        *("-hide_banner", "-nostats", "-nostdin", "-loglevel", "level+warning"),
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


def _video_graph(inputs: Sequence[Input], options: HlsOptions) -> str:
    shown = [each for each in inputs if each.video]
    places = tiles(len(shown), options.width, options.height)
    chains = []
    for index, (each, tile) in enumerate(zip(shown, places, strict=True)):
        size = f"{tile.width}:{tile.height}"
        steps = [
            f"scale={size}:force_original_aspect_ratio=decrease:force_divisible_by=2:flags=bilinear",
            f"pad={size}:(ow-iw)/2:(oh-ih)/2:eval=frame",
            "setsar=1",
            f"fps={options.frame_rate}:start_time=0",
            "format=yuv420p",
        ]
        if options.show_names and each.name:
            steps.append(_name(each.name, tile.height, options.font))
        chains.append(f"[0:v:{index}]{','.join(steps)}[v{index}]")
    if len(shown) == 1:
        return chains[0].removesuffix("[v0]") + "[v]"
    sources = "".join(f"[v{index}]" for index in range(len(shown)))
    layout = "|".join(f"{tile.x}_{tile.y}" for tile in places)
    # The last row of a grid may leave room to the right and below: the canvas is padded to its full size.
    stacked = f"{sources}xstack=inputs={len(shown)}:layout={layout}:fill=black"
    return ";".join([*chains, f"{stacked},pad={options.width}:{options.height}[v]"])


def _name(name: str, height: int, font: str | None) -> str:
    """The participant's name at the lower left of the tile."""
    source = f":fontfile='{_escape(font)}'" if font else ""
    text = _escape(name[:40])
    size = max(12, height // 18)
    return (
        f"drawtext=expansion=none:text='{text}'{source}:fontsize={size}:fontcolor=white:box=1:boxcolor=black@0.5:"
        f"boxborderw={size // 3}:x={size}:y=h-th-{size}"
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
