"""RTP, ICE and DTLS parameters: the objects that clients and the server exchange about media.

Names and shapes are those of mediasoup v3 (which took them from ORTC), in camelCase on the wire.
Everybody may import these; they are frozen values without behaviour. Decode what a stranger sent
with :func:`msgspec.convert` (or a decoder): lengths and ranges are bounded here, so that a hostile
payload ends in :class:`msgspec.ValidationError`; what needs more than one field to judge is in
:mod:`trio_sfu.media.validation`. Unknown fields are ignored: clients send more than we read.

Encoding: a field that is ``None`` is left out. Fields with other defaults are always written, as
mediasoup does, because some clients (libmediasoupclient) insist on them.
"""

import re
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

MediaKind: TypeAlias = Literal["audio", "video"]
RtpHeaderExtensionDirection: TypeAlias = Literal["sendrecv", "sendonly", "recvonly", "inactive"]
DtlsRole: TypeAlias = Literal["auto", "client", "server"]

# Browsers list some 50 codecs (RTX included) and some 30 extensions; twice that leaves room.
MAX_CODECS = 128
MAX_HEADER_EXTENSIONS = 96
MAX_FEEDBACK = 32
MAX_FORMAT_PARAMETERS = 32
MAX_ENCODINGS = 32
MAX_FINGERPRINTS = 16

Uint32: TypeAlias = Annotated[int, Meta(ge=0, le=0xFFFFFFFF)]
PayloadType: TypeAlias = Annotated[int, Meta(ge=0, le=127)]
ExtensionId: TypeAlias = Annotated[int, Meta(ge=1, le=255)]
Port: TypeAlias = Annotated[int, Meta(ge=0, le=65535)]
# Much of this text reaches other people's browsers, which write it into SDP lines: no line ends, no
# lone surrogates, nothing but what SDP attributes hold. \Z, because $ lets a final newline through.
_TEXT = r"^[\x20-\x7e]*\Z"
Token: TypeAlias = Annotated[str, Meta(pattern=_TEXT, max_length=255)]
MimeType: TypeAlias = Annotated[str, Meta(pattern=r"^(?i:audio|video)/[A-Za-z0-9!#$%&'*+.^_`|~-]+\Z", max_length=64)]
Uri: TypeAlias = Annotated[str, Meta(pattern=_TEXT, min_length=1, max_length=255)]
_Key: TypeAlias = Annotated[str, Meta(pattern=_TEXT, max_length=64)]
# A bound is what keeps NaN and the infinities out: JSON for the next client could not hold them.
_Finite: TypeAlias = Annotated[float, Meta(ge=-(2.0**53), le=2.0**53)]
_Integer: TypeAlias = Annotated[int, Meta(ge=-(2**53), le=2**53)]
# Only strings and numbers, as in mediasoup. The bound lets sprop-parameter-sets through.
FormatValue: TypeAlias = Annotated[str, Meta(pattern=_TEXT, max_length=1024)] | _Integer | _Finite
FormatParameters: TypeAlias = Annotated[dict[_Key, FormatValue], Meta(max_length=MAX_FORMAT_PARAMETERS)]
_PositiveNumber: TypeAlias = Annotated[int, Meta(ge=0, le=2**53)] | Annotated[float, Meta(ge=0, le=2.0**53)]

_AUDIO = re.compile(r"audio/", re.IGNORECASE)


# msgspec leaves a field out only where its value *is* the default. A factory has no such value, so
# these keep their fields on the wire.
def _empty_string() -> str:
    return ""


def _empty_tuple() -> tuple[()]:
    return ()


def _empty_parameters() -> FormatParameters:
    return {}


def _true() -> bool:
    return True


def _false() -> bool:
    return False


def _sendrecv() -> RtpHeaderExtensionDirection:
    return "sendrecv"


def _auto() -> DtlsRole:
    return "auto"


class _Parameters(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What all of them share; not for use by itself."""


class RtcpFeedback(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """One feedback message of a codec, e.g. ``("nack", "pli")`` (RFC 4585 section 4.2)."""

    type: Annotated[str, Meta(pattern=_TEXT, min_length=1, max_length=64)]
    parameter: Annotated[str, Meta(pattern=_TEXT, max_length=64)] = msgspec.field(default_factory=_empty_string)


class _Codec(_Parameters, frozen=True, kw_only=True):
    mime_type: MimeType
    clock_rate: Annotated[int, Meta(ge=1, le=0xFFFFFFFF)]
    # Audio: 1 where a client sent none. Video: always None.
    channels: Annotated[int, Meta(ge=1, le=255)] | None = None
    parameters: FormatParameters = msgspec.field(default_factory=_empty_parameters)
    rtcp_feedback: Annotated[tuple[RtcpFeedback, ...], Meta(max_length=MAX_FEEDBACK)] = msgspec.field(
        default_factory=_empty_tuple
    )

    @property
    def media_kind(self) -> MediaKind:
        """The kind that ``mime_type`` says, whatever else was sent."""
        return "audio" if _AUDIO.match(self.mime_type) else "video"

    def __post_init__(self) -> None:
        # As mediasoup's validators do: so that codecs of two clients compare field by field.
        channels = None if self.media_kind == "video" else self.channels or 1
        if channels != self.channels:
            msgspec.structs.force_setattr(self, "channels", channels)


class RtpCodecCapability(_Codec, frozen=True, kw_only=True):
    """A codec that an endpoint can receive (or, in the router's list, that it forwards).

    ``kind`` follows ``mime_type``: a contradicting one is overruled, as in mediasoup.
    """

    kind: MediaKind | None = None
    preferred_payload_type: PayloadType | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != self.media_kind:
            msgspec.structs.force_setattr(self, "kind", self.media_kind)


class RtpCodecParameters(_Codec, frozen=True, kw_only=True):
    """A codec in use, with the payload type that its packets carry."""

    payload_type: PayloadType


class RtpHeaderExtension(_Parameters, frozen=True, kw_only=True):
    """A header extension (RFC 8285) that an endpoint can handle.

    ``direction`` is the owner's view: ``recvonly`` in the router's list means that the router reads
    it and does not send it. In clients' capabilities it is ignored.
    """

    kind: MediaKind
    uri: Uri
    preferred_id: ExtensionId
    preferred_encrypt: bool = msgspec.field(default_factory=_false)
    direction: RtpHeaderExtensionDirection = msgspec.field(default_factory=_sendrecv)


class RtpHeaderExtensionParameters(_Parameters, frozen=True, kw_only=True):
    """A header extension in use, with the id that packets carry."""

    uri: Uri
    id: ExtensionId
    encrypt: bool = msgspec.field(default_factory=_false)
    parameters: FormatParameters = msgspec.field(default_factory=_empty_parameters)


class RtxParameters(_Parameters, frozen=True, kw_only=True):
    """The retransmission stream of an encoding (RFC 4588)."""

    ssrc: Uint32


class RtpEncodingParameters(_Parameters, frozen=True, kw_only=True):
    """One RTP stream: found by its ``ssrc``, or by its ``rid`` (RFC 8852) once packets come.

    ``max_bitrate`` is in bit/s.
    """

    ssrc: Uint32 | None = None
    rid: Token | None = None
    codec_payload_type: PayloadType | None = None
    rtx: RtxParameters | None = None
    dtx: bool = msgspec.field(default_factory=_false)
    scalability_mode: Annotated[str, Meta(pattern=_TEXT, max_length=32)] | None = None
    scale_resolution_down_by: _PositiveNumber | None = None
    max_bitrate: _PositiveNumber | None = None
    max_framerate: _PositiveNumber | None = None


class RtcpParameters(_Parameters, frozen=True, kw_only=True):
    """RTCP settings of a set of streams. ``cname`` is at most what SDES can carry (RFC 3550 6.5)."""

    cname: Token | None = None
    reduced_size: bool = msgspec.field(default_factory=_true)
    mux: bool | None = None


class RtpParameters(_Parameters, frozen=True, kw_only=True):
    """What a producer sends, or what a consumer gets: codecs, extensions and streams.

    ``msid`` is the stream id and track id of the sender (RFC 8830): a receiving browser plays what has
    the same stream id in sync.
    """

    codecs: Annotated[tuple[RtpCodecParameters, ...], Meta(max_length=MAX_CODECS)]
    mid: Token | None = None
    header_extensions: Annotated[tuple[RtpHeaderExtensionParameters, ...], Meta(max_length=MAX_HEADER_EXTENSIONS)] = (
        msgspec.field(default_factory=_empty_tuple)
    )
    encodings: Annotated[tuple[RtpEncodingParameters, ...], Meta(max_length=MAX_ENCODINGS)] = msgspec.field(
        default_factory=_empty_tuple
    )
    rtcp: RtcpParameters = msgspec.field(default_factory=RtcpParameters)
    msid: Token | None = None


class RtpCapabilities(_Parameters, frozen=True, kw_only=True):
    """What an endpoint can receive."""

    codecs: Annotated[tuple[RtpCodecCapability, ...], Meta(max_length=MAX_CODECS)] = msgspec.field(
        default_factory=_empty_tuple
    )
    header_extensions: Annotated[tuple[RtpHeaderExtension, ...], Meta(max_length=MAX_HEADER_EXTENSIONS)] = (
        msgspec.field(default_factory=_empty_tuple)
    )


class IceParameters(_Parameters, frozen=True, kw_only=True):
    """The server's ICE credentials (RFC 8839 section 5.4)."""

    username_fragment: Annotated[str, Meta(min_length=4, max_length=256)]
    password: Annotated[str, Meta(min_length=22, max_length=256)]
    ice_lite: bool | None = None


class IceCandidate(_Parameters, frozen=True, kw_only=True):
    """One address of the server (RFC 8839 section 5.1). ``ip`` is kept for older clients, ``address``
    is what newer ones read; both hold the same text.
    """

    foundation: Annotated[str, Meta(max_length=32)]
    priority: Uint32
    ip: Annotated[str, Meta(max_length=255)]
    address: Annotated[str, Meta(max_length=255)]
    protocol: Literal["udp", "tcp"]
    port: Port
    type: Literal["host", "srflx", "prflx", "relay"]
    tcp_type: Literal["active", "passive", "so"] | None = None


class DtlsFingerprint(_Parameters, frozen=True, kw_only=True):
    """The digest of a certificate, as hex pairs with colons (RFC 8122 section 5)."""

    algorithm: Annotated[str, Meta(min_length=1, max_length=16)]
    value: Annotated[str, Meta(min_length=1, max_length=255)]


class DtlsParameters(_Parameters, frozen=True, kw_only=True):
    """The role that the sender of these wants for itself, and its certificate's fingerprints."""

    role: DtlsRole = msgspec.field(default_factory=_auto)
    fingerprints: Annotated[tuple[DtlsFingerprint, ...], Meta(min_length=1, max_length=MAX_FINGERPRINTS)]
