"""The command line, by what FFmpeg itself makes of it: pictures sent as files instead of RTP."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import av
import numpy
import pytest

from trio_sfu.hls.command import Input, enlarge, ffmpeg_command
from trio_sfu.hls.ffmpeg import find_ffmpeg
from trio_sfu.hls.options import HlsOptions

SMALL = HlsOptions(width=640, height=360, frame_rate=10)
TONES = (400, 700, 1100, 1600, 2300)
COLOURS = ("red", "lime", "blue", "yellow", "magenta")
#: Mean red, green and blue of the colours above.
BRIGHT = ((1, 0, 0), (0, 1, 0), (0, 0, 1), (1, 1, 0), (1, 0, 1))


def compose(inputs: Sequence[Input], options: HlsOptions, source: Path, large: int | None = None) -> bytes:
    """Run the real command with a file in place of the SDP: in it each participant has a colour and a tone."""
    ffmpeg = find_ffmpeg(None)
    make = [ffmpeg, "-v", "error", "-y"]
    maps: list[str] = []
    for index, each in enumerate(inputs):
        make += ["-f", "lavfi", "-i", f"sine=frequency={TONES[index]}:sample_rate=48000:duration=1"]
        make += ["-f", "lavfi", "-i", f"color={COLOURS[index]}:size=160x90:rate=10:duration=1"]
        maps += ["-map", f"{2 * index}:a"] + (["-map", f"{2 * index + 1}:v"] if each.video else [])
    make += [*maps, "-c:a", "libopus", "-c:v", "libx264", "-preset", "ultrafast", str(source)]
    subprocess.run(make, check=True, timeout=30)
    command = ffmpeg_command(ffmpeg, str(source), inputs, options, large)
    for option in ("-localaddr", "-buffer_size", "-reorder_queue_size", "-max_delay"):
        at = command.index(option)
        del command[at : at + 2]
    command[command.index("sdp")] = "matroska"
    done = subprocess.run(command, check=True, timeout=30, capture_output=True, input=b"")
    assert done.stderr == b""
    return done.stdout


def decode(data: bytes, path: Path) -> tuple[list[numpy.ndarray], numpy.ndarray]:
    """RGB pictures, and all samples of the left channel."""
    path.write_bytes(data)
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        sound = numpy.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    return pictures, sound


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_each_participant_is_seen_and_heard(count: int, tmp_path: Path) -> None:
    inputs = [Input(None, video=True) for _ in range(count)]
    pictures, sound = decode(compose(inputs, SMALL, tmp_path / "in.mkv"), tmp_path / "out.mp4")
    assert len(pictures) in (10, 11)
    assert pictures[0].shape == (360, 640, 3)
    centres = {
        1: [(320, 180)],
        2: [(160, 180), (480, 180)],
        3: [(160, 90), (480, 90), (320, 270)],
        5: [(106, 90), (318, 90), (530, 90), (212, 270), (424, 270)],
    }[count]
    for (x, y), colour in zip(centres, BRIGHT, strict=False):
        pixel = pictures[5][y, x] / 255
        assert numpy.abs(pixel - colour).max() < 0.2, (x, y, pixel)
    spectrum = numpy.abs(numpy.fft.rfft(sound[4800:43200] * numpy.hanning(38400)))
    hertz = numpy.fft.rfftfreq(38400, 1 / 48000)
    quiet = numpy.median(spectrum)
    for tone in TONES[:count]:
        assert spectrum[numpy.argmin(abs(hertz - tone))] > 100 * quiet, tone
    assert abs(sound).max() < 1.0  # nothing clips


def test_who_is_beyond_the_picture_is_still_heard(tmp_path: Path) -> None:
    inputs = [Input(None, video=True), Input(None, video=False)]
    pictures, sound = decode(compose(inputs, SMALL, tmp_path / "in.mkv"), tmp_path / "out.mp4")
    assert numpy.abs(pictures[5][180, 600] / 255 - BRIGHT[0]).max() < 0.2
    spectrum = numpy.abs(numpy.fft.rfft(sound[4800:43200]))
    assert spectrum[round(TONES[1] * 0.8)] > 100 * numpy.median(spectrum)


@pytest.mark.parametrize("name", ["Ann", "O'Brien: 100% \\o/", "a,b;[x]=y'", "%{pts}", "\n\t日本", "'"])
def test_any_name_is_only_a_name(name: str, tmp_path: Path) -> None:
    options = HlsOptions(width=640, height=360, frame_rate=10, show_names=True)
    pictures, _ = decode(compose([Input(name, video=True)], options, tmp_path / "in.mkv"), tmp_path / "out.mp4")
    assert pictures[5][300:350, 10:60].min() < 100, "there is a dark box behind the name"


def test_each_frame_is_a_fragment(tmp_path: Path) -> None:
    data = compose([Input(None, video=True)], SMALL, tmp_path / "in.mkv")
    assert data[4:8] == b"ftyp"
    assert data.count(b"moof") >= 40  # 10 pictures, and 46 frames of AAC


# -- who speaks is large ---

#: The middles of the large place, and of the small ones.
PLACES = {2: [(320, 144), (320, 324)], 3: [(320, 144), (256, 324), (384, 324)]}


@pytest.mark.parametrize(
    ("count", "large", "shown"), [(1, 0, [0]), (2, 1, [1, 0]), (3, 0, [0, 1, 2]), (3, 2, [2, 1, 0])]
)
def test_one_is_large_and_the_others_are_below(count: int, large: int, shown: list[int], tmp_path: Path) -> None:
    inputs = [Input(None, video=True) for _ in range(count)]
    pictures, _ = decode(compose(inputs, SMALL, tmp_path / "in.mkv", large), tmp_path / "out.mp4")
    assert len(pictures) in (10, 11)
    assert pictures[0].shape == (360, 640, 3)
    for (x, y), index in zip(PLACES.get(count, [(320, 180)]), shown, strict=True):
        pixel = pictures[5][y, x] / 255
        assert numpy.abs(pixel - BRIGHT[index]).max() < 0.2, (x, y, pixel)


@pytest.mark.parametrize("name", ["Ann", "O'Brien: 100% \\o/", "a,b;[x]=y'", "%{pts}", "\n\t日本", "'"])
def test_a_name_goes_with_who_is_large(name: str, tmp_path: Path) -> None:
    options = HlsOptions(width=640, height=360, frame_rate=10, show_names=True)
    inputs = [Input(None, video=True), Input(name, video=True)]
    border = (slice(250, 280), slice(10, 60))  # black, left of the large picture
    small = (slice(330, 352), slice(262, 300))
    for large in (0, 1):
        pictures, _ = decode(compose(inputs, options, tmp_path / "in.mkv", large), tmp_path / "out.mp4")
        assert (pictures[5][border].max() > 180) == (large == 1), "there is white text"
        assert (pictures[5][small].max(axis=2).min() < 150) == (large == 0), "there is a dark box"


def test_each_place_chooses_by_one_number() -> None:
    inputs = [Input(None, video=index != 1) for index in range(4)]
    graph = ffmpeg_command("ffmpeg", "s.sdp", inputs, SMALL, 1)
    chains = graph[graph.index("-filter_complex") + 1].split(";")
    assert [chain.partition(",split=")[2] for chain in chains[:3]] == [
        "3[c0_0][c1_1][c2_2]",
        "3[c0_1][c1_0][c1_2]",
        "3[c0_2][c2_0][c2_1]",
    ]
    for place, chain in enumerate(chains[3:6]):
        assert chain.startswith(f"[c{place}_0][c{place}_1][c{place}_2]streamselect=inputs=3:map=1,scale=")
    assert enlarge(2) == "Cstreamselect -1 map 2\n"


def test_only_who_is_to_be_commanded_reads_commands() -> None:
    inputs = [Input(None, video=True)] * 2
    assert "-nostdin" in ffmpeg_command("ffmpeg", "s.sdp", inputs, SMALL)
    assert "-nostdin" not in ffmpeg_command("ffmpeg", "s.sdp", inputs, SMALL, 0)
