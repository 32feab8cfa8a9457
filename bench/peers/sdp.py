"""The little SDP that servers other than this project's want (RFC 8866, RFC 8829). Pure; used by the drivers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.peer import RemoteParameters
from bench.peers import Expected, LocalParameters, Subscription
from bench.rtp import (
    ABS_SEND_TIME_ID,
    ABS_SEND_TIME_URI,
    MID_ID,
    MID_URI,
    TRANSPORT_CC_ID,
    TRANSPORT_CC_URI,
    StreamFormat,
)


@dataclass(slots=True)
class Media:
    """One m-line of a description that was read; ``codecs`` maps payload type to its rtpmap."""

    kind: str
    mid: str = ""
    payload_types: tuple[str, ...] = ()
    codecs: dict[str, str] = field(default_factory=dict)
    extensions: dict[str, int] = field(default_factory=dict)
    ssrcs: list[int] = field(default_factory=list)
    pairs: dict[int, int] = field(default_factory=dict)  # a source's own SSRC → its RTX


def offer(
    local: LocalParameters, streams: Sequence[StreamFormat], *, sending: bool = True, host: str = "127.0.0.1"
) -> str:
    """Of all ``streams`` on one transport, to be sent or (of streams whose kind alone matters) received."""
    lines = _session(len(streams))
    for index, stream in enumerate(streams):
        rtx = stream.rtx_payload_type
        types = f"{stream.payload_type}" + (f" {rtx}" if rtx else "")
        lines += _transport(local, stream.kind, types, str(index), "sendonly" if sending else "recvonly", host)
        channels = "/2" if stream.kind == "audio" else ""
        name = stream.mime_type.partition("/")[2]
        lines.append(f"a=rtpmap:{stream.payload_type} {name}/{stream.clock_rate}{channels}")
        feedback = ("nack", "nack pli", "ccm fir", "transport-cc") if stream.kind == "video" else ("transport-cc",)
        lines += [f"a=rtcp-fb:{stream.payload_type} {kind}" for kind in feedback]
        if rtx:
            lines += [f"a=rtpmap:{rtx} rtx/{stream.clock_rate}", f"a=fmtp:{rtx} apt={stream.payload_type}"]
        lines += [
            f"a=extmap:{identifier} {uri}"
            for identifier, uri in (
                (MID_ID, MID_URI),
                (ABS_SEND_TIME_ID, ABS_SEND_TIME_URI),
                (TRANSPORT_CC_ID, TRANSPORT_CC_URI),
            )
        ]
        if sending:
            ssrcs = [stream.ssrc] + ([stream.rtx_ssrc] if stream.rtx_ssrc is not None else [])
            if len(ssrcs) > 1:
                lines.append(f"a=ssrc-group:FID {ssrcs[0]} {ssrcs[1]}")
            lines += [f"a=ssrc:{ssrc} cname:bench{stream.ssrc:08x}" for ssrc in ssrcs]
            lines.append(f"a=msid:bench bench{index}")
    return "\r\n".join(lines) + "\r\n"


def answer(local: LocalParameters, offered: Sequence[Media], *, host: str = "127.0.0.1") -> str:
    """Taking all that is offered: every codec, every extension, receiving only."""
    lines = _session(len(offered), [media.mid for media in offered])
    for media in offered:
        lines += _transport(local, media.kind, " ".join(media.payload_types), media.mid, "recvonly", host)
        for number, codec in media.codecs.items():
            lines.append(f"a=rtpmap:{number} {codec}")
            kinds = ("nack", "nack pli", "ccm fir", "transport-cc") if media.kind == "video" else ("transport-cc",)
            if "rtx" not in codec:
                lines += [f"a=rtcp-fb:{number} {kind}" for kind in kinds]
        lines += [f"a=extmap:{identifier} {uri}" for uri, identifier in media.extensions.items()]
    return "\r\n".join(lines) + "\r\n"


def parse(text: str) -> tuple[RemoteParameters, list[Media]]:
    """The transport (all m-lines share the first one's) and the m-lines. Raises ValueError or KeyError."""
    media: list[Media] = []
    found: dict[str, str] = {}
    candidates: list[tuple[str, int]] = []
    fingerprints: list[tuple[str, str]] = []
    for line in text.splitlines():
        name, _, value = line.partition("=")
        if name == "m":
            kind, _, _, *types = value.split()
            media.append(Media(kind, payload_types=tuple(types)))
        if name != "a":
            continue
        key, _, rest = value.partition(":")
        if key in ("ice-ufrag", "ice-pwd"):
            found.setdefault(key, rest)
        elif key == "fingerprint":
            algorithm, _, digest = rest.partition(" ")
            fingerprints.append((algorithm.lower(), digest))
        elif key == "candidate":
            fields = rest.split()
            if fields[2].lower() == "udp" and fields[1] == "1":
                candidates.append((fields[4], int(fields[5])))
        elif media:
            _read(media[-1], key, rest)
    return (
        RemoteParameters(
            "",
            found["ice-ufrag"],
            found["ice-pwd"],
            tuple(dict.fromkeys(candidates)),
            tuple(dict.fromkeys(fingerprints)),
        ),
        media,
    )


def subscription(remote: RemoteParameters, media: Sequence[Media]) -> Subscription:
    """What will come of the streams described."""
    streams = []
    transport_cc_id = 0
    for each in media:
        rtx = set(each.pairs.values())
        streams += [Expected(each.kind, ssrc, each.pairs.get(ssrc)) for ssrc in each.ssrcs if ssrc not in rtx]
        transport_cc_id = each.extensions.get(TRANSPORT_CC_URI, transport_cc_id)
    return Subscription(remote, tuple(streams), transport_cc_id)


def _read(media: Media, key: str, rest: str) -> None:
    if key == "mid":
        media.mid = rest
    elif key == "rtpmap":
        number, _, codec = rest.partition(" ")
        media.codecs[number] = codec
    elif key == "extmap":
        identifier, _, uri = rest.partition(" ")
        media.extensions[uri.split()[0]] = int(identifier.partition("/")[0])
    elif key == "ssrc":
        ssrc = int(rest.partition(" ")[0])
        if ssrc not in media.ssrcs:
            media.ssrcs.append(ssrc)
    elif key == "ssrc-group" and rest.startswith("FID "):
        _, first, second = rest.split()
        media.pairs[int(first)] = int(second)


def _session(count: int, mids: Sequence[str] | None = None) -> list[str]:
    bundle = " ".join(mids if mids is not None else map(str, range(count)))
    return ["v=0", "o=- 1 1 IN IP4 127.0.0.1", "s=-", "t=0 0", f"a=group:BUNDLE {bundle}", "a=msid-semantic:WMS *"]


def _transport(local: LocalParameters, kind: str, types: str, mid: str, direction: str, host: str) -> list[str]:
    return [
        f"m={kind} 9 UDP/TLS/RTP/SAVPF {types}",
        "c=IN IP4 127.0.0.1",
        f"a=mid:{mid}",
        f"a={direction}",
        f"a=ice-ufrag:{local.username_fragment}",
        f"a=ice-pwd:{local.password}",
        f"a=fingerprint:sha-256 {local.fingerprint}",
        "a=setup:active",
        "a=rtcp-mux",
        f"a=candidate:1 1 udp 2130706431 {host} {local.port} typ host",
        "a=end-of-candidates",
    ]
