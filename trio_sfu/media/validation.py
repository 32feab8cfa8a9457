"""Judging parameters that a client sent, where the types alone cannot.

Called by :mod:`trio_sfu.media.ortc` and the media objects before anything is built from what a
stranger sent. What a single field may hold is checked when it is decoded
(:mod:`trio_sfu.media.parameters`); here is what needs several fields, or a meaning: the rules of
mediasoup's ``ortc.ts`` and of its worker's ``RtpParameters``. Everything raises
:class:`~trio_sfu.media.errors.MediaError` and nothing else.
"""

import re
from typing import Final

from trio_sfu.media.codec_matching import associated_payload_type, is_rtx
from trio_sfu.media.errors import MediaError
from trio_sfu.media.parameters import (
    DtlsParameters,
    MediaKind,
    RtpCapabilities,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpParameters,
)

# What a one-byte header extension holds (RFC 8285 section 4.2).
MAX_MID_LENGTH: Final = 16
MAX_RID_LENGTH: Final = 16
# More layers than any browser sends; each costs the server state.
MAX_PRODUCER_ENCODINGS: Final = 8

# RFC 8843 section 15.1 (a token of RFC 4566) and RFC 8852 section 3.
_MID = re.compile(r"[!#-'*+\-.0-9A-Z^-~]+", re.ASCII)
_RID = re.compile(r"[0-9A-Za-z_-]+", re.ASCII)

# Digest lengths in bytes of the hash functions of RFC 8122 section 5 that can still be trusted to
# name a certificate, and SHA-1, which old clients send.
_DIGEST_LENGTHS: Final = {"sha-1": 20, "sha-224": 28, "sha-256": 32, "sha-384": 48, "sha-512": 64}
_HEX_PAIRS = re.compile(r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2})*", re.ASCII)


def validate_rtp_capabilities(capabilities: RtpCapabilities) -> None:
    """Check what a client says it can receive.

    Raises :class:`MediaError` ``invalid-rtp-capabilities``.
    """
    for codec in capabilities.codecs:
        _validate_apt(codec, "invalid-rtp-capabilities")


def validate_rtp_parameters(kind: MediaKind, parameters: RtpParameters) -> None:
    """Check what a producer of ``kind`` says it will send.

    Raises :class:`MediaError`: ``duplicate-ssrc`` where two streams have the same one, RTX streams
    included, else ``invalid-rtp-parameters``.
    """
    _validate_codecs(kind, parameters.codecs)
    _validate_header_extensions(parameters)
    if parameters.mid is not None and (len(parameters.mid) > MAX_MID_LENGTH or not _MID.fullmatch(parameters.mid)):
        raise _invalid(f"mid must be a token of 1 to {MAX_MID_LENGTH} characters")
    _validate_encodings(parameters)


def validate_dtls_parameters(parameters: DtlsParameters) -> None:
    """Check the fingerprints that a client sent.

    At least one has to be of a hash function that is known here, and each of those well formed.
    Raises :class:`MediaError` ``invalid-dtls-parameters``.
    """
    known = 0
    for fingerprint in parameters.fingerprints:
        length = _DIGEST_LENGTHS.get(fingerprint.algorithm.lower())
        if length is None:
            continue
        if not _HEX_PAIRS.fullmatch(fingerprint.value) or len(fingerprint.value) != 3 * length - 1:
            raise MediaError(
                "invalid-dtls-parameters",
                f"a {fingerprint.algorithm} fingerprint is {length} pairs of hex digits with colons between",
            )
        known += 1
    if not known:
        raise MediaError(
            "invalid-dtls-parameters",
            f"a fingerprint of one of {', '.join(_DIGEST_LENGTHS)} is needed",
        )


def _invalid(message: str) -> MediaError:
    return MediaError("invalid-rtp-parameters", message)


def _validate_apt(codec: RtpCodecCapability | RtpCodecParameters, code: str) -> None:
    if (is_rtx(codec) or "apt" in codec.parameters) and associated_payload_type(codec) is None:
        raise MediaError(code, f"apt of {codec.mime_type} must be a payload type")


def _validate_codecs(kind: MediaKind, codecs: tuple[RtpCodecParameters, ...]) -> None:
    media: set[int] = set()
    seen: set[int] = set()
    for codec in codecs:
        if not 0 <= codec.payload_type <= 127:
            raise _invalid(f"{codec.payload_type} is not a payload type")
        if codec.payload_type in seen:
            raise _invalid(f"payload type {codec.payload_type} is given to two codecs")
        seen.add(codec.payload_type)
        if codec.media_kind != kind:
            raise _invalid(f"{codec.mime_type} cannot be in the parameters of a producer of {kind}")
        _validate_apt(codec, "invalid-rtp-parameters")
        if not is_rtx(codec):
            media.add(codec.payload_type)
    if not media:
        raise _invalid("there must be at least one media codec")
    repaired: set[int] = set()
    for codec in codecs:
        if not is_rtx(codec):
            continue
        apt = associated_payload_type(codec)
        if apt is None or apt not in media:
            raise _invalid(f"apt of RTX payload type {codec.payload_type} names no media codec")
        if apt in repaired:
            raise _invalid(f"two RTX codecs repair payload type {apt}")
        repaired.add(apt)


def _validate_header_extensions(parameters: RtpParameters) -> None:
    ids: set[int] = set()
    uris: set[str] = set()
    for extension in parameters.header_extensions:
        if not 1 <= extension.id <= 255:
            raise _invalid(f"header extension id {extension.id} is not in the range 1 to 255")
        if extension.id in ids:
            raise _invalid(f"header extension id {extension.id} is given twice")
        if extension.uri in uris:
            raise _invalid(f"header extension {extension.uri} is given twice")
        if extension.encrypt:
            raise _invalid("encrypted header extensions are not supported")
        ids.add(extension.id)
        uris.add(extension.uri)


def _validate_encodings(parameters: RtpParameters) -> None:
    encodings = parameters.encodings
    if not 1 <= len(encodings) <= MAX_PRODUCER_ENCODINGS:
        raise _invalid(f"there must be 1 to {MAX_PRODUCER_ENCODINGS} encodings")
    media = {codec.payload_type for codec in parameters.codecs if not is_rtx(codec)}
    rids: set[str] = set()
    ssrcs: set[int] = set()
    for encoding in encodings:
        if encoding.codec_payload_type is not None and encoding.codec_payload_type not in media:
            raise _invalid(f"codecPayloadType {encoding.codec_payload_type} names no media codec")
        if encoding.rid is not None:
            if len(encoding.rid) > MAX_RID_LENGTH or not _RID.fullmatch(encoding.rid):
                raise _invalid(f"rid must be 1 to {MAX_RID_LENGTH} letters, digits, '-' or '_'")
            if encoding.rid in rids:
                raise _invalid(f"rid {encoding.rid} is given twice")
            rids.add(encoding.rid)
        for ssrc in _ssrcs(encoding):
            if not 1 <= ssrc <= 0xFFFFFFFF:
                raise _invalid(f"{ssrc} is not an SSRC that a stream can have")
            if ssrc in ssrcs:
                raise MediaError("duplicate-ssrc", f"SSRC {ssrc} is given to two streams")
            ssrcs.add(ssrc)
        # A single stream may be found by its MID alone; of several, each needs a mark of its own.
        if encoding.ssrc is None and encoding.rid is None and (len(encodings) > 1 or not parameters.mid):
            raise _invalid("an encoding needs an ssrc or a rid, or the parameters a mid")


def _ssrcs(encoding: RtpEncodingParameters) -> list[int]:
    ssrcs = [] if encoding.ssrc is None else [encoding.ssrc]
    if encoding.rtx is not None:
        ssrcs.append(encoding.rtx.ssrc)
    return ssrcs
