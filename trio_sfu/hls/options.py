"""What the operator decides about live streams. Read by everything in ``hls/``; made by the configuration."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

__all__ = ["LAYOUTS", "HlsOptions", "Layout"]

Layout = Literal["grid", "speaker"]
LAYOUTS: Final[tuple[Layout, ...]] = Layout.__args__  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True, kw_only=True)
class HlsOptions:
    """Times in seconds, sizes in pixels, rates in bits a second."""

    ffmpeg: str | None = None
    """The program to use; None: the one that the package ``imageio-ffmpeg`` brings."""
    width: int = 1280
    height: int = 720
    frame_rate: int = 30
    video_bitrate: int = 2_500_000
    audio_bitrate: int = 128_000
    layout: Layout = "grid"
    """All tiles of one size, or whoever speaks large."""
    max_tiles: int = 16
    """Participants in the picture; those above it are heard only."""
    show_names: bool = False
    font: str | None = None
    """A font file for the names; None: what fontconfig finds."""
    segment_seconds: float = 2.0
    part_seconds: float = 1 / 3
    window_seconds: float = 60.0
    first_port: int = 20_000
    last_port: int = 29_999
    hls_dir: Path | None = None
    record_dir: Path | None = None
    run_dir: Path | None = None
    """Where the folder for SDP files and states is made; None: the system's place for temporary files."""
