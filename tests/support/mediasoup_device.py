"""What mediasoup-client makes of a browser's SDP: the JSON that it sends to a server.

A stand-in for its ``Device``, for tests without a browser. It works on plain JSON objects and shares
no code with the package, so that it checks it. Only what negotiation sees is modelled.
"""

import copy
import re
from pathlib import Path
from typing import Any

Json = dict[str, Any]

FIXTURES = Path(__file__).parent.parent / "media" / "fixtures"
TRANSPORT_CC = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01"


def _number_or_text(value: str) -> int | str:
    return int(value) if re.fullmatch(r"0|[1-9][0-9]*", value) else value


def _format_parameters(text: str) -> Json:
    parameters: Json = {}
    for item in text.split(";"):
        key, equals, value = item.strip().partition("=")
        if equals:  # "111/111" becomes undefined in JavaScript, and that nothing in JSON
            parameters[key] = value if key == "profile-level-id" else _number_or_text(value)
    return parameters


def native_capabilities(browser: str) -> Json:
    """The ``RtpCapabilities`` of ``tests/media/fixtures/<browser>.sdp``."""
    codecs: dict[int, Json] = {}
    extensions: list[Json] = []
    kind = ""
    for line in (FIXTURES / f"{browser}.sdp").read_text().splitlines():
        name, _, value = line.partition(":")
        if line.startswith("m="):
            kind = line[2:].split()[0]
        elif name == "a=extmap":
            id_, uri = value.split(" ", 1)
            extensions.append({"kind": kind, "uri": uri, "preferredId": int(id_.split("/")[0])})
        elif name == "a=rtpmap":
            payload_type, codec = value.split(" ", 1)
            codec_name, clock_rate, *channels = codec.split("/")
            codecs[int(payload_type)] = {
                "kind": kind,
                "mimeType": f"{kind}/{codec_name}",
                "preferredPayloadType": int(payload_type),
                "clockRate": int(clock_rate),
                "parameters": {},
                "rtcpFeedback": [],
            } | ({"channels": int(channels[0]) if channels else 1} if kind == "audio" else {})
        elif name == "a=fmtp":
            payload_type, text = value.split(" ", 1)
            codecs[int(payload_type)]["parameters"] = _format_parameters(text)
        elif name == "a=rtcp-fb":
            payload_type, feedback, *parameter = value.split(" ")
            codecs[int(payload_type)]["rtcpFeedback"].append(
                {"type": feedback, "parameter": parameter[0] if parameter else ""}
            )
    for native in codecs.values():
        if native["mimeType"] == "audio/opus":
            native["rtcpFeedback"].append({"type": "nack", "parameter": ""})
    return {"codecs": list(codecs.values()), "headerExtensions": extensions}


def _is_rtx(codec: Json) -> bool:
    return str(codec["mimeType"]).lower().endswith("/rtx")


def _h264_profile(codec: Json) -> str:
    # Good enough for what browsers list: 42e0 is 42 with the constraint, the rest by its first bytes.
    return str(codec["parameters"].get("profile-level-id", "42e01f"))[:4].lower()


def _match(local: Json, remote: Json) -> bool:
    if local["mimeType"].lower() != remote["mimeType"].lower() or local["clockRate"] != remote["clockRate"]:
        return False
    if local.get("channels") != remote.get("channels"):
        return False
    a, b = local["parameters"], remote["parameters"]
    match local["mimeType"].lower():
        case "video/h264":
            same_mode = a.get("packetization-mode", 0) == b.get("packetization-mode", 0)
            return same_mode and _h264_profile(local) == _h264_profile(remote)
        case "video/vp9":
            return bool(a.get("profile-id", 0) == b.get("profile-id", 0))
    return True


def _rtx_of(codec: Json, capabilities: Json) -> Json | None:
    for other in capabilities["codecs"]:
        if _is_rtx(other) and other["parameters"].get("apt") == codec["preferredPayloadType"]:
            return dict(other)
    return None


class Device:
    """A loaded ``mediasoup-client`` device of one browser."""

    def __init__(self, browser: str, router_capabilities: Json) -> None:
        native = self._native = native_capabilities(browser)
        router = copy.deepcopy(router_capabilities)
        self._pairs: list[tuple[Json, Json, Json | None, Json | None]] = []
        for remote in router["codecs"]:
            if _is_rtx(remote):
                continue
            local = next((codec for codec in native["codecs"] if _match(codec, remote)), None)
            if local is not None:
                local_rtx, remote_rtx = _rtx_of(local, native), _rtx_of(remote, router)
                both = local_rtx is not None and remote_rtx is not None
                self._pairs.append((local, remote, local_rtx if both else None, remote_rtx if both else None))
        self._extensions = [
            (local, remote)
            for remote in router["headerExtensions"]
            for local in [
                next(
                    (
                        ext
                        for ext in native["headerExtensions"]
                        if ext["uri"] == remote["uri"] and ext["kind"] == remote["kind"]
                    ),
                    None,
                )
            ]
            if local is not None
        ]

    @staticmethod
    def _feedback(local: Json, remote: Json) -> list[Json]:
        theirs = [(fb["type"], fb.get("parameter", "")) for fb in remote["rtcpFeedback"]]
        return [fb for fb in local["rtcpFeedback"] if (fb["type"], fb["parameter"]) in theirs]

    @property
    def rtp_capabilities(self) -> Json:
        """``device.rtpCapabilities`` (receiving): what ``consume`` requests carry."""
        codecs: list[Json] = []
        for local, remote, _, remote_rtx in self._pairs:
            codecs.append(
                local
                | {
                    "preferredPayloadType": remote["preferredPayloadType"],
                    "rtcpFeedback": self._feedback(local, remote),
                }
            )
            if remote_rtx is not None:
                codecs.append(remote_rtx)
        # The client keeps what the browser lists in a map by id: of an extension that audio and video
        # share, which is most of audio's, only the video entry is left.
        listed = {local["preferredId"]: local for local in self._native["headerExtensions"]}
        extensions = [
            {
                "kind": remote["kind"],
                "uri": remote["uri"],
                "preferredId": remote["preferredId"],
                "preferredEncrypt": False,
                "direction": {"sendonly": "recvonly"}.get(remote["direction"], remote["direction"]),
            }
            for local, remote in self._extensions
            if remote["direction"] in ("sendrecv", "sendonly") and listed[local["preferredId"]] is local
        ]
        return copy.deepcopy({"codecs": codecs, "headerExtensions": extensions})

    def sending_parameters(
        self,
        kind: str,
        mime_type: str | None = None,
        *,
        mid: str = "0",
        encodings: list[Json] | None = None,
        cname: str = "vKy1uLpFWTVXGLHC",
    ) -> Json:
        """``rtpParameters`` of a ``produce`` request: the first codec of ``kind``, or the one asked for."""
        local, remote, local_rtx, _ = next(
            pair for pair in self._pairs if pair[0]["kind"] == kind and mime_type in (None, pair[0]["mimeType"])
        )
        codec = {key: value for key, value in local.items() if key not in ("kind", "preferredPayloadType")}
        codec |= {
            "payloadType": local["preferredPayloadType"],
            "rtcpFeedback": self._feedback(local, remote),
        }
        codecs = [codec]
        if local_rtx is not None:
            codecs.append(
                {
                    "mimeType": local_rtx["mimeType"],
                    "payloadType": local_rtx["preferredPayloadType"],
                    "clockRate": local_rtx["clockRate"],
                    "parameters": local_rtx["parameters"],
                    "rtcpFeedback": [],
                }
            )
        if encodings is None:
            encodings = [{"ssrc": 3080375312, "dtx": False}]
            if local_rtx is not None:
                encodings[0]["rtx"] = {"ssrc": 2292016904}
        return copy.deepcopy(
            {
                "mid": mid,
                "codecs": codecs,
                "headerExtensions": [
                    {"uri": ext["uri"], "id": ext["preferredId"], "encrypt": False, "parameters": {}}
                    for ext, remote in self._extensions
                    if ext["kind"] == kind and remote["direction"] in ("sendrecv", "recvonly")
                ],
                "encodings": encodings,
                "rtcp": {"cname": cname, "reducedSize": True},
                "msid": "stream-of-all track-of-" + kind,
            }
        )
