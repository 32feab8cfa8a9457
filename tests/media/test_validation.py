"""trio_sfu.media.validation and scalability_modes: what a stranger's parameters must be like."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.support.mediasoup_device import Device
from trio_sfu.media.capabilities import MID_URI, router_rtp_capabilities
from trio_sfu.media.errors import MediaError
from trio_sfu.media.parameters import (
    DtlsFingerprint,
    DtlsParameters,
    RtpCapabilities,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpParameters,
)
from trio_sfu.media.scalability_modes import parse_scalability_mode
from trio_sfu.media.validation import (
    validate_dtls_parameters,
    validate_rtp_capabilities,
    validate_rtp_parameters,
)

Json = dict[str, Any]
ROUTER = msgspec.to_builtins(router_rtp_capabilities())


def check(change: Callable[[Json], object], kind: str = "video") -> str | None:
    """Change what Chromium sends; the code of the error, or None where it is accepted."""
    parameters = Device("chrome", ROUTER).sending_parameters(kind)
    change(parameters)
    try:
        validate_rtp_parameters("video", msgspec.convert(parameters, RtpParameters))
    except MediaError as error:
        return error.code
    return None


def test_errors_have_a_code_and_a_sentence() -> None:
    error = MediaError("cannot-consume", "the endpoint does not support the codec")
    assert (error.code, error.message, str(error)) == ("cannot-consume", error.args[0], error.args[0])
    assert repr(error) == "MediaError('cannot-consume', 'the endpoint does not support the codec')"


@pytest.mark.parametrize("browser", ["chrome", "firefox", "safari"])
@pytest.mark.parametrize("kind", ["audio", "video"])
def test_browsers_parameters_are_valid(browser: str, kind: Any) -> None:
    device = Device(browser, ROUTER)
    validate_rtp_parameters(kind, msgspec.convert(device.sending_parameters(kind), RtpParameters))
    validate_rtp_capabilities(msgspec.convert(device.rtp_capabilities, RtpCapabilities))


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p["codecs"].clear(),
        lambda p: p["codecs"].pop(0),
        lambda p: p["codecs"].append(p["codecs"][0]),
        lambda p: p["codecs"][1]["parameters"].update(apt=55),
        lambda p: p["codecs"][1]["parameters"].update(apt=p["codecs"][1]["payloadType"]),
        lambda p: p["codecs"][1]["parameters"].update(apt="96"),
        lambda p: p["codecs"][1]["parameters"].clear(),
        lambda p: p["codecs"][0]["parameters"].update(apt="x"),
        lambda p: p["codecs"].append(p["codecs"][1] | {"payloadType": 50}),
        lambda p: p.update(mid=""),
        lambda p: p.update(mid="x" * 17),
        lambda p: p.update(mid="a b"),
        lambda p: p["encodings"].clear(),
        lambda p: p.update(encodings=[{"ssrc": i + 1} for i in range(9)]),
        lambda p: p["encodings"][0].update(codecPayloadType=p["codecs"][1]["payloadType"]),
        lambda p: p["encodings"][0].update(codecPayloadType=5),
        lambda p: p["encodings"][0].update(ssrc=0),
        lambda p: p["encodings"][0]["rtx"].update(ssrc=0),
        lambda p: p.update(encodings=[{"rid": "a"}, {"rid": "a"}]),
        lambda p: p.update(encodings=[{"rid": "a"}, {}]),
        lambda p: p.update(encodings=[{"rid": "a.b"}]),
        lambda p: p.update(encodings=[{"rid": ""}]),
        lambda p: p.update(encodings=[{"rid": "r" * 17}]),
        lambda p: p.update(encodings=[{}], mid=None),
        lambda p: p["headerExtensions"].append({"uri": MID_URI, "id": 200}),
        lambda p: p["headerExtensions"].append({"uri": "urn:x", "id": p["headerExtensions"][0]["id"]}),
        lambda p: p["headerExtensions"][0].update(encrypt=True),
    ],
)
def test_invalid_rtp_parameters(change: Callable[[Json], object]) -> None:
    assert check(change) == "invalid-rtp-parameters"


def test_a_producer_of_the_other_kind_is_invalid() -> None:
    assert check(lambda p: None, kind="audio") == "invalid-rtp-parameters"


@pytest.mark.parametrize(
    "encodings",
    [
        [{"ssrc": 1}, {"ssrc": 1}],
        [{"ssrc": 1, "rtx": {"ssrc": 1}}],
        [{"ssrc": 1, "rtx": {"ssrc": 2}}, {"ssrc": 2}],
        [{"ssrc": 1, "rtx": {"ssrc": 3}}, {"ssrc": 2, "rtx": {"ssrc": 3}}],
    ],
)
def test_duplicate_ssrcs(encodings: list[Json]) -> None:
    assert check(lambda p: p.update(encodings=encodings)) == "duplicate-ssrc"


@pytest.mark.parametrize(
    "change",
    [
        lambda p: p.update(encodings=[{}]),
        lambda p: p.update(encodings=[{"rid": "r0"}, {"rid": "r1"}, {"rid": "r2"}]),
        lambda p: p.update(encodings=[{"ssrc": 1}, {"ssrc": 2}], mid=None),
        lambda p: p["encodings"][0].update(codecPayloadType=p["codecs"][0]["payloadType"]),
        lambda p: p["headerExtensions"].append({"uri": "urn:x", "id": 255}),
        lambda p: p.update(mid="sdparta_0"),
        lambda p: p["codecs"].pop(),
    ],
)
def test_valid_rtp_parameters(change: Callable[[Json], object]) -> None:
    assert check(change) is None


def test_ranges_hold_for_values_that_were_never_decoded() -> None:
    codec = RtpCodecParameters(mime_type="video/VP8", clock_rate=90000, payload_type=96)
    bad_codec = msgspec.structs.replace(codec, payload_type=200)
    for parameters in (
        RtpParameters(codecs=(bad_codec,), encodings=(RtpEncodingParameters(ssrc=1),)),
        RtpParameters(codecs=(codec,), encodings=(RtpEncodingParameters(ssrc=2**32),)),
    ):
        with pytest.raises(MediaError):
            validate_rtp_parameters("video", parameters)


def test_capabilities_need_a_numeric_apt() -> None:
    rtx: Json = {"mimeType": "video/rtx", "clockRate": 90000, "parameters": {"apt": "96"}}
    with pytest.raises(MediaError) as caught:
        validate_rtp_capabilities(msgspec.convert({"codecs": [rtx]}, RtpCapabilities))
    assert caught.value.code == "invalid-rtp-capabilities"


SHA256 = ":".join(["AB"] * 32)


@pytest.mark.parametrize(
    ("fingerprints", "valid"),
    [
        ([("sha-256", SHA256)], True),
        ([("SHA-256", SHA256.lower())], True),
        ([("sha-1", ":".join(["00"] * 20)), ("sha-512", ":".join(["ff"] * 64))], True),
        ([("md5", "AB"), ("sha-256", SHA256)], True),
        ([("md5", ":".join(["AB"] * 16))], False),
        ([("sha-256", SHA256[:-3])], False),
        ([("sha-256", SHA256.replace(":", "-"))], False),
        ([("sha-256", SHA256 + "\n")], False),
        ([("sha-256", SHA256), ("sha-384", SHA256)], False),
        ([], False),
    ],
)
def test_dtls_parameters(fingerprints: list[tuple[str, str]], valid: bool) -> None:
    parameters = DtlsParameters(
        fingerprints=tuple(DtlsFingerprint(algorithm=algorithm, value=value) for algorithm, value in fingerprints)
    )
    if valid:
        validate_dtls_parameters(parameters)
    else:
        with pytest.raises(MediaError) as caught:
            validate_dtls_parameters(parameters)
        assert caught.value.code == "invalid-dtls-parameters"


@pytest.mark.parametrize(
    ("mode", "layers"),
    [
        ("L1T3", (1, 3, False)),
        ("L3T3_KEY", (3, 3, True)),
        ("L3T3_KEY_SHIFT", (3, 3, True)),
        ("S2T3", (2, 3, False)),
        ("L20T3", (20, 3, False)),
        ("L4T7_KEY", (4, 7, True)),
        ("L0T3", (1, 1, False)),
        ("foo", (1, 1, False)),
        ("", (1, 1, False)),
        (None, (1, 1, False)),
    ],
)
def test_scalability_modes(mode: str | None, layers: tuple[int, int, bool]) -> None:
    assert parse_scalability_mode(mode) == layers
