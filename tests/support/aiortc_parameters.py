"""Between mediasoup's RTP parameters and aiortc's, as mediasoup-client's ortc.ts negotiates them for a browser."""

from __future__ import annotations

import uuid
from typing import Any, TypeAlias

from aiortc import RTCRtpCodecParameters, RTCRtpHeaderExtensionParameters, RTCRtpSender
from aiortc.codecs import CODECS, HEADER_EXTENSIONS, is_rtx
from aiortc.rtcrtpparameters import (
    RTCRtcpFeedback,
    RTCRtcpParameters,
    RTCRtpDecodingParameters,
    RTCRtpReceiveParameters,
    RTCRtpRtxParameters,
    RTCRtpSendParameters,
)

__all__ = ["produce_parameters", "receive_capabilities", "receive_parameters", "send_parameters"]

Json: TypeAlias = dict[str, Any]

# As long as aiortc's own: it cannot read a report about two streams whose CNAMEs' length is not a multiple of four
# (it does not know the padding of SDES chunks, RFC 3550 section 6.5).
CNAME = str(uuid.uuid4())


def _format_parameters(codec: RTCRtpCodecParameters) -> Json:
    numbers = ("level-asymmetry-allowed", "packetization-mode")  # which aiortc keeps as strings
    return {key: int(value or 0) if key in numbers else value for key, value in codec.parameters.items()}


def _router_codec(local: RTCRtpCodecParameters, router: Json) -> Json | None:
    """The router's codec that this one of aiortc's is."""
    for codec in router["codecs"]:
        if codec["mimeType"].lower() != local.mimeType.lower() or codec["clockRate"] != local.clockRate:
            continue
        if local.channels is not None and codec.get("channels") != local.channels:
            continue
        known = _format_parameters(local)
        if all(codec["parameters"].get(key) == value for key, value in known.items()):
            return dict(codec)
    return None


def _feedback(local: RTCRtpCodecParameters, remote: Json) -> list[RTCRtcpFeedback]:
    wanted = {(each["type"], each.get("parameter", "")) for each in remote["rtcpFeedback"]}
    return [each for each in local.rtcpFeedback if (each.type, each.parameter or "") in wanted]


def _router_extension(local: RTCRtpHeaderExtensionParameters, kind: str, router: Json) -> Json | None:
    found = [each for each in router["headerExtensions"] if each["uri"] == local.uri and each["kind"] == kind]
    return dict(found[0]) if found else None


def _send_codecs(kind: str, name: str, router: Json) -> list[RTCRtpCodecParameters]:
    """aiortc's codec of that name that the router has too, with its RTX."""
    for codec in CODECS[kind]:
        if codec.name.lower() == name.lower() and (remote := _router_codec(codec, router)) is not None:
            rtx = [each for each in CODECS[kind] if is_rtx(each) and each.parameters["apt"] == codec.payloadType]
            main = RTCRtpCodecParameters(
                mimeType=codec.mimeType,
                clockRate=codec.clockRate,
                channels=codec.channels,
                payloadType=codec.payloadType,
                rtcpFeedback=_feedback(codec, remote),
                parameters=codec.parameters,
            )
            return [main, *rtx]
    raise AssertionError(f"aiortc and the router do not share {name}")


def send_parameters(kind: str, codec: str, mid: str, sender: RTCRtpSender, router: Json) -> RTCRtpSendParameters:
    """For ``sender.send``: aiortc's own codec of that name and header extensions, as far as the router knows them."""
    return RTCRtpSendParameters(
        codecs=_send_codecs(kind, codec, router),
        headerExtensions=[each for each in HEADER_EXTENSIONS[kind] if _router_extension(each, kind, router)],
        muxId=mid,
        rtcp=RTCRtcpParameters(cname=CNAME, mux=True, ssrc=sender._ssrc),
    )


def produce_parameters(parameters: RTCRtpSendParameters, sender: RTCRtpSender) -> Json:
    """The same for the request ``produce``."""
    encoding: Json = {"ssrc": sender._ssrc}
    if any(is_rtx(codec) for codec in parameters.codecs):
        encoding["rtx"] = {"ssrc": sender._rtx_ssrc}
    return {
        "mid": parameters.muxId,
        "codecs": [
            {
                "mimeType": codec.mimeType,
                "payloadType": codec.payloadType,
                "clockRate": codec.clockRate,
                **({} if codec.channels is None else {"channels": codec.channels}),
                "parameters": _format_parameters(codec),
                "rtcpFeedback": [{"type": each.type, "parameter": each.parameter or ""} for each in codec.rtcpFeedback],
            }
            for codec in parameters.codecs
        ],
        "headerExtensions": [{"uri": each.uri, "id": each.id} for each in parameters.headerExtensions],
        "encodings": [encoding],
        "rtcp": {"cname": parameters.rtcp.cname, "reducedSize": True},
    }


def receive_capabilities(router: Json) -> Json:
    """What aiortc can receive of the router's: with the router's payload types and extension ids, as in ortc.ts."""
    codecs: list[Json] = []
    for local in (codec for kind in CODECS.values() for codec in kind if not is_rtx(codec)):
        if (remote := _router_codec(local, router)) is None:
            continue
        feedback = [{"type": each.type, "parameter": each.parameter or ""} for each in _feedback(local, remote)]
        codecs.append({**remote, "parameters": _format_parameters(local), "rtcpFeedback": feedback})
        payload_type = remote["preferredPayloadType"]
        codecs += [each for each in router["codecs"] if each["parameters"].get("apt") == payload_type]
    extensions = [
        extension
        for kind, locals_ in HEADER_EXTENSIONS.items()
        for local in locals_
        if (extension := _router_extension(local, kind, router)) is not None
    ]
    return {"codecs": codecs, "headerExtensions": extensions}


def receive_parameters(parameters: Json) -> RTCRtpReceiveParameters:
    """For ``receiver.receive``, from the answer to ``consume``."""
    codecs = [
        RTCRtpCodecParameters(
            mimeType=each["mimeType"],
            clockRate=each["clockRate"],
            channels=each.get("channels"),
            payloadType=each["payloadType"],
            rtcpFeedback=[RTCRtcpFeedback(one["type"], one["parameter"] or None) for one in each["rtcpFeedback"]],
            parameters=each["parameters"],
        )
        for each in parameters["codecs"]
    ]
    encodings = [
        RTCRtpDecodingParameters(
            ssrc=each["ssrc"],
            payloadType=parameters["codecs"][0]["payloadType"],
            rtx=RTCRtpRtxParameters(each["rtx"]["ssrc"]) if "rtx" in each else None,
        )
        for each in parameters["encodings"]
    ]
    return RTCRtpReceiveParameters(
        codecs=codecs,
        headerExtensions=[
            RTCRtpHeaderExtensionParameters(each["id"], each["uri"]) for each in parameters["headerExtensions"]
        ],
        muxId=parameters["mid"],
        rtcp=RTCRtcpParameters(cname=parameters["rtcp"]["cname"], mux=True),
        encodings=encodings,
    )
