"""The session description that FFmpeg receives by. Pure text; used by the pipeline.

Source: RFC 8866; RFC 3605 for the RTCP ports; RFC 7587, 7741, 9628, 6184 and the AV1 RTP specification for formats.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from trio_sfu.media.parameters import MediaKind, RtpCodecParameters

__all__ = ["Stream", "session_description"]


@dataclass(frozen=True, slots=True)
class Stream:
    """One RTP stream that FFmpeg receives on ``port``, with its RTCP on ``rtcp_port``."""

    kind: MediaKind
    codec: RtpCodecParameters
    port: int
    rtcp_port: int


def session_description(streams: Sequence[Stream], host: str = "127.0.0.1") -> str:
    """The SDP for streams sent to ``host``, in their order."""
    family = "IP6" if ":" in host else "IP4"
    lines = ["v=0", f"o=- 0 0 IN {family} {host}", "s=trio_sfu", f"c=IN {family} {host}", "t=0 0"]
    for stream in streams:
        codec = stream.codec
        payload_type = codec.payload_type
        name = codec.mime_type.partition("/")[2]
        channels = f"/{codec.channels}" if stream.kind == "audio" and codec.channels else ""
        lines += [
            f"m={stream.kind} {stream.port} RTP/AVP {payload_type}",
            f"a=rtpmap:{payload_type} {name}/{codec.clock_rate}{channels}",
            f"a=rtcp:{stream.rtcp_port}",
            "a=recvonly",
        ]
        if name.upper() == "H264":
            lines.append(f"a=fmtp:{payload_type} packetization-mode=1")
    return "\r\n".join(lines) + "\r\n"
