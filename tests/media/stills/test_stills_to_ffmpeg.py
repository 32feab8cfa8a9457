"""Streams with repeats through FFmpeg's own RTP input: depacketizer, parser and decoder as the pipeline uses them."""

import random
import struct
from pathlib import Path
from subprocess import PIPE

import pytest
import trio
from imageio_ffmpeg import get_ffmpeg_exe

from tests.support.coded_video import decode, encode, packetize
from trio_sfu.hls.ports import PortRange, wait_bound
from trio_sfu.media.stills import make_plain, make_repeater

STREAMS = {
    "VP8": "-c:v libvpx -deadline realtime -cpu-used 8 -b:v 300k -g 300 -error-resilient 1",
    "VP9": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8 -b:v 300k -g 300 -lag-in-frames 0",
    "H264": "-c:v libopenh264 -profile:v constrained_baseline -coder cavlc -g 300",
    "AV1": "-c:v libaom-av1 -usage realtime -cpu-used 8 -b:v 300k -g 300 -lag-in-frames 0",
}
LAG = 2  # frames that come later, from which the parser sees that all before them are whole


def description(codec: str, port: int) -> str:
    lines = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=-", "c=IN IP4 127.0.0.1", "t=0 0"]
    lines += [f"m=video {port} RTP/AVP 96", f"a=rtpmap:96 {codec}/90000"]
    lines += ["a=fmtp:96 packetization-mode=1"] if codec == "H264" else []
    return "\r\n".join([*lines, ""])


def with_repeats(codec: str) -> tuple[list[list[bytes]], list[str]]:
    """The payloads of each frame, real ones and repeats, and the MD5 of the picture that each is to show."""
    frames = encode(codec, STREAMS[codec])
    digests = [each.digest for each in decode(codec, frames)]
    repeater, plain = make_repeater(f"video/{codec}"), make_plain(f"video/{codec}")
    assert repeater is not None
    chance = random.Random(3)
    sent: list[list[bytes]] = []
    expected: list[str] = []
    for number, frame in enumerate(frames):
        payloads = [plain(each) for each in packetize(codec, frame, number)]
        for at, payload in enumerate(payloads):
            repeater.observe(payload, marker=at == len(payloads) - 1, first=at == 0)
        repeat = repeater.repeat()
        assert repeat is not None
        repeats = chance.choice((0, 0, 1, 3)) if number < len(frames) - 1 else LAG
        sent += [payloads, *[repeat] * repeats]
        expected += [digests[number]] * (1 + repeats)
    return sent, expected


async def send(frames: list[list[bytes]], port: int) -> None:
    """As RTP, in five times real time."""
    sequence_number = 65_500
    with trio.socket.socket(trio.socket.AF_INET, trio.socket.SOCK_DGRAM) as socket:
        for number, payloads in enumerate(frames):
            for at, payload in enumerate(payloads):
                marker = 0x80 if at == len(payloads) - 1 else 0
                head = struct.pack("!BBHII", 0x80, 96 | marker, sequence_number, 3000 * number, 1)
                await socket.sendto(head + payload, ("127.0.0.1", port))
                sequence_number = (sequence_number + 1) % 65_536
            await trio.sleep(1 / 150)


@pytest.mark.parametrize("codec", STREAMS)
async def test_ffmpeg_shows_every_frame_and_every_repeat(codec: str, tmp_path: Path) -> None:
    frames, expected = with_repeats(codec)
    del expected[-LAG:]
    sdp = tmp_path / "input.sdp"
    with PortRange(43_000, 43_999).lease() as ports:
        sdp.write_text(description(codec, ports.rtp))
        command = (
            f"{get_ffmpeg_exe()} -v error -protocol_whitelist file,udp,rtp -flags low_delay -buffer_size 4000000 "
            f"-analyzeduration 500000 -i {sdp} -fps_mode passthrough -frames:v {len(expected)} -f framemd5 -"
        )
        with trio.fail_after(30):
            async with trio.open_nursery() as nursery:
                process = await nursery.start(lambda task_status: _run(command, task_status))
                try:
                    await wait_bound([ports.rtp, ports.rtcp], pid=process.pid, seconds=10)
                    await send(frames, ports.rtp)
                    shown = await _output_of(process)
                finally:
                    process.kill()
    assert shown == expected


async def _run(command: str, task_status: trio.TaskStatus[trio.Process]) -> None:
    await trio.run_process(command.split(), stdout=PIPE, check=False, task_status=task_status)


async def _output_of(process: trio.Process) -> list[str]:
    """The MD5s that it wrote until it ended."""
    assert process.stdout is not None
    text = b"".join([each async for each in process.stdout]).decode()
    return [line.rpartition(",")[2].strip() for line in text.splitlines() if not line.startswith("#")]
