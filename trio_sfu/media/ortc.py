"""ORTC negotiation: from a producer's parameters to the router's, and from those to a consumer's.

Pure functions, called by the router when it makes producers and consumers. The rules are those of
mediasoup's ``ortc.ts``; where this differs it is said. The way of a stream's parameters::

    producer's RtpParameters ── get_producer_mapping ──► ProducerMapping   (its numbers → the router's)
              └── get_consumable_rtp_parameters ──► consumable             (all in the router's numbers)
                        └── get_consumer_rtp_parameters ──► a consumer's RtpParameters

A consumer's payload types and header extension ids are always the router's: the packets that leave
are the same for everybody but for SSRC, sequence number, timestamp and a few extensions.
"""

from dataclasses import dataclass

import msgspec

from trio_sfu.media import h264_profile
from trio_sfu.media.capabilities import ABS_SEND_TIME_URI, DEPENDENCY_DESCRIPTOR_URI, TRANSPORT_CC_URI
from trio_sfu.media.codec_matching import associated_payload_type, codecs_match, common_feedback, is_rtx
from trio_sfu.media.errors import MediaError
from trio_sfu.media.parameters import (
    FormatParameters,
    MediaKind,
    RtcpFeedback,
    RtcpParameters,
    RtpCapabilities,
    RtpCodecCapability,
    RtpCodecParameters,
    RtpEncodingParameters,
    RtpHeaderExtensionParameters,
    RtpParameters,
    RtxParameters,
)
from trio_sfu.media.scalability_modes import parse_scalability_mode
from trio_sfu.media.validation import (
    validate_dtls_parameters,
    validate_rtp_capabilities,
    validate_rtp_parameters,
)

__all__ = [
    "ProducerMapping",
    "can_consume",
    "get_consumable_rtp_parameters",
    "get_consumer_rtp_parameters",
    "get_producer_mapping",
    "validate_dtls_parameters",
    "validate_rtp_capabilities",
    "validate_rtp_parameters",
]


@dataclass(frozen=True, slots=True)
class ProducerMapping:
    """How a producer's numbers translate to the router's.

    ``payload_types``: the producer's to the router's, RTX included. ``rtx_payload_types``: the
    producer's RTX payload types to the producer's media payload types that they repair.
    ``header_extension_ids``: the producer's to the router's, of the extensions that the router reads
    or forwards; others are not in it and are to be dropped.
    """

    payload_types: dict[int, int]
    rtx_payload_types: dict[int, int]
    header_extension_ids: dict[int, int]


def get_producer_mapping(
    kind: MediaKind, parameters: RtpParameters, router_capabilities: RtpCapabilities
) -> ProducerMapping:
    """Match each of a producer's codecs and header extensions to the router's.

    ``parameters`` have passed :func:`validate_rtp_parameters`. Raises :class:`MediaError`
    ``unsupported-codec`` for a codec, or an RTX codec, that the router does not have. Unknown header
    extensions are no error.
    """
    payload_types: dict[int, int] = {}
    rtx_payload_types: dict[int, int] = {}
    for codec in parameters.codecs:
        if not is_rtx(codec):
            payload_types[codec.payload_type] = _preferred(_router_codec(codec, router_capabilities))
    for codec in parameters.codecs:
        if not is_rtx(codec):
            continue
        apt = associated_payload_type(codec)
        if apt is None or apt not in payload_types or apt in rtx_payload_types:
            raise MediaError(
                "invalid-rtp-parameters", f"apt of RTX payload type {codec.payload_type} names no media codec"
            )
        router_rtx = _rtx_of(payload_types[apt], router_capabilities)
        if router_rtx is None:
            raise MediaError("unsupported-codec", f"there is no RTX for payload type {apt}")
        rtx_payload_types[codec.payload_type] = apt
        payload_types[codec.payload_type] = _preferred(router_rtx)
    router_ids = {
        extension.uri: extension.preferred_id
        for extension in router_capabilities.header_extensions
        if extension.kind == kind and extension.direction in ("sendrecv", "recvonly")
    }
    header_extension_ids = {
        extension.id: router_ids[extension.uri]
        for extension in parameters.header_extensions
        if extension.uri in router_ids
    }
    return ProducerMapping(payload_types, rtx_payload_types, header_extension_ids)


def get_consumable_rtp_parameters(
    kind: MediaKind,
    parameters: RtpParameters,
    router_capabilities: RtpCapabilities,
    mapping: ProducerMapping,
) -> RtpParameters:
    """A producer's parameters in the router's numbers: what all its consumers' are made from.

    The codec that the first encoding uses comes first, RTX after each codec that the router can
    repair, whether or not the producer itself sends RTX. Encodings are in the producer's order, with
    neither SSRC nor rid: these are the producer's own affair.
    """
    codecs: list[RtpCodecParameters] = []
    used: set[int] = set()
    for codec in _first_used_first(parameters):
        payload_type = mapping.payload_types[codec.payload_type]
        # Two of a producer's codecs can be one to the router, e.g. H.264 levels of a profile.
        if payload_type in used:
            continue
        used.add(payload_type)
        router_codec = _router_codec(codec, router_capabilities)
        codecs.append(
            RtpCodecParameters(
                mime_type=router_codec.mime_type,
                payload_type=payload_type,
                clock_rate=router_codec.clock_rate,
                channels=router_codec.channels,
                parameters=_answered_parameters(codec, router_codec),
                rtcp_feedback=router_codec.rtcp_feedback,
            )
        )
        router_rtx = _rtx_of(payload_type, router_capabilities)
        if router_rtx is not None:
            codecs.append(
                RtpCodecParameters(
                    mime_type=router_rtx.mime_type,
                    payload_type=_preferred(router_rtx),
                    clock_rate=router_rtx.clock_rate,
                    channels=router_rtx.channels,
                    parameters=dict(router_rtx.parameters),
                    rtcp_feedback=router_rtx.rtcp_feedback,
                )
            )
    with_descriptor = passes_descriptor(codecs[0].mime_type, parameters.encodings)
    return RtpParameters(
        codecs=tuple(codecs),
        header_extensions=tuple(
            RtpHeaderExtensionParameters(uri=extension.uri, id=extension.preferred_id)
            for extension in router_capabilities.header_extensions
            if extension.kind == kind
            and extension.direction in ("sendrecv", "sendonly")
            and (with_descriptor or extension.uri != DEPENDENCY_DESCRIPTOR_URI)
        ),
        encodings=tuple(
            msgspec.structs.replace(encoding, ssrc=None, rid=None, rtx=None, codec_payload_type=None)
            for encoding in parameters.encodings
        ),
        rtcp=RtcpParameters(cname=parameters.rtcp.cname, reduced_size=True, mux=True),
        msid=parameters.msid,
    )


def passes_descriptor(mime_type: str, encodings: tuple[RtpEncodingParameters, ...]) -> bool:
    """Whether consumers get the dependency descriptor: receivers of AV1 need it to tell layers apart.

    Not of several streams: its frame numbers would break where a consumer goes over to another one.
    """
    mode = parse_scalability_mode(encodings[0].scalability_mode)
    layered = mode.spatial_layers > 1 or mode.temporal_layers > 1
    return mime_type.lower() == "video/av1" and len(encodings) == 1 and layered


def can_consume(consumable: RtpParameters, capabilities: RtpCapabilities) -> bool:
    """Whether an endpoint with these capabilities can receive the producer.

    It has to support the codec that the producer's first encoding uses. (mediasoup is content with
    any of the producer's codecs where RTX is not in play; with one codec, which is what its client
    sends, it is the same.) Raises :class:`MediaError` ``invalid-rtp-capabilities``.
    """
    validate_rtp_capabilities(capabilities)
    return bool(consumable.codecs) and bool(_matching(consumable.codecs[0], capabilities))


def get_consumer_rtp_parameters(
    consumable: RtpParameters,
    capabilities: RtpCapabilities,
    *,
    mid: str,
    ssrc: int,
    rtx_ssrc: int,
    cname: str,
    enable_rtx: bool | None = None,
) -> RtpParameters:
    """What one consumer gets: one encoding, in the router's payload types and extension ids.

    Codecs, their feedback and the header extensions are reduced to what the endpoint has too. RTX is
    there where it can receive it for the codec in question. ``enable_rtx`` turns retransmission,
    RTX and generic NACK, on or off; as in mediasoup it is on for video only where not given.

    Raises :class:`MediaError`: ``invalid-rtp-capabilities``, or ``cannot-consume`` where
    :func:`can_consume` is false.
    """
    if not can_consume(consumable, capabilities):
        raise MediaError("cannot-consume", "the endpoint does not support the producer's codec")
    if enable_rtx is None:
        enable_rtx = consumable.codecs[0].media_kind == "video"
    header_extensions = _common_header_extensions(consumable, capabilities)
    estimation = _estimation_feedback(header_extensions)

    codecs: list[RtpCodecParameters] = []
    repairable: set[int] = set()
    has_rtx = False
    for codec in consumable.codecs:
        if is_rtx(codec):
            # It always follows the codec that it repairs.
            if associated_payload_type(codec) in repairable:
                codecs.append(codec)
                has_rtx = True
            continue
        matching = _matching(codec, capabilities)
        if not matching:
            continue
        if enable_rtx and any(_endpoint_repairs(candidate, capabilities) for candidate in matching):
            repairable.add(codec.payload_type)
        feedback = tuple(
            message
            for message in common_feedback(codec.rtcp_feedback, matching[0].rtcp_feedback)
            if (enable_rtx or message != RtcpFeedback("nack"))
            and (message.type not in ("transport-cc", "goog-remb") or message.type == estimation)
        )
        codecs.append(msgspec.structs.replace(codec, rtcp_feedback=feedback))

    encoding = RtpEncodingParameters(
        ssrc=ssrc,
        rtx=RtxParameters(ssrc=rtx_ssrc) if has_rtx else None,
        scalability_mode=_scalability_mode(consumable.encodings),
        max_bitrate=max((encoding.max_bitrate or 0 for encoding in consumable.encodings), default=0) or None,
    )
    return RtpParameters(
        mid=mid,
        codecs=tuple(codecs),
        header_extensions=header_extensions,
        encodings=(encoding,),
        rtcp=msgspec.structs.replace(consumable.rtcp, cname=cname),
        msid=consumable.msid,
    )


def _preferred(codec: RtpCodecCapability) -> int:
    assert codec.preferred_payload_type is not None, "every codec of a router has a payload type"
    return codec.preferred_payload_type


def _router_codec(codec: RtpCodecParameters, capabilities: RtpCapabilities) -> RtpCodecCapability:
    for candidate in capabilities.codecs:
        if not is_rtx(candidate) and codecs_match(codec, candidate):
            return candidate
    raise MediaError("unsupported-codec", f"{codec.mime_type} of payload type {codec.payload_type} is not supported")


def _rtx_of(payload_type: int, capabilities: RtpCapabilities) -> RtpCodecCapability | None:
    for candidate in capabilities.codecs:
        if is_rtx(candidate) and associated_payload_type(candidate) == payload_type:
            return candidate
    return None


def _first_used_first(parameters: RtpParameters) -> list[RtpCodecParameters]:
    """The media codecs, beginning with the one that the first encoding uses: the first of them,
    unless its ``codecPayloadType`` says another.
    """
    media = [codec for codec in parameters.codecs if not is_rtx(codec)]
    first = parameters.encodings[0].codec_payload_type if parameters.encodings else None
    return sorted(media, key=lambda codec: codec.payload_type != first) if first is not None else media


def _answered_parameters(codec: RtpCodecParameters, router_codec: RtpCodecCapability) -> FormatParameters:
    """The producer's own parameters, with the H.264 level that was agreed upon."""
    parameters = dict(codec.parameters)
    if codec.mime_type.lower() == "video/h264":
        parameters.pop("profile-level-id", None)
        answer = h264_profile.answer_profile_level_id(codec.parameters, router_codec.parameters)
        if answer is not None:
            parameters["profile-level-id"] = answer
    return parameters


def _matching(codec: RtpCodecParameters, capabilities: RtpCapabilities) -> list[RtpCodecCapability]:
    return [candidate for candidate in capabilities.codecs if not is_rtx(candidate) and codecs_match(candidate, codec)]


def _endpoint_repairs(codec: RtpCodecCapability, capabilities: RtpCapabilities) -> bool:
    """Whether the endpoint can receive RTX for this codec of its own."""
    if codec.preferred_payload_type is None:
        # Nothing that an apt could refer to: then any RTX of the kind will do, as for mediasoup.
        return any(is_rtx(other) and other.kind == codec.kind for other in capabilities.codecs)
    return _rtx_of(codec.preferred_payload_type, capabilities) is not None


def _common_header_extensions(
    consumable: RtpParameters, capabilities: RtpCapabilities
) -> tuple[RtpHeaderExtensionParameters, ...]:
    # By id too: whoever has another id for it would misread the packets. mediasoup-client takes over
    # the router's ids, and so does any endpoint that answers what the server offers. Not by kind:
    # mediasoup-client (3.24) lists an extension that audio and video share under video only.
    known = {(extension.uri, extension.preferred_id) for extension in capabilities.header_extensions}
    return tuple(extension for extension in consumable.header_extensions if (extension.uri, extension.id) in known)


def _estimation_feedback(extensions: tuple[RtpHeaderExtensionParameters, ...]) -> str | None:
    """Which bandwidth estimation the receiver is to report: transport-cc if it can, REMB otherwise."""
    uris = {extension.uri for extension in extensions}
    if TRANSPORT_CC_URI in uris:
        return "transport-cc"
    return "goog-remb" if ABS_SEND_TIME_URI in uris else None


def _scalability_mode(encodings: tuple[RtpEncodingParameters, ...]) -> str | None:
    """All encodings are taken to have the same mode; simulcast streams count as spatial layers."""
    mode = next((encoding.scalability_mode for encoding in encodings if encoding.scalability_mode), None)
    if len(encodings) > 1:
        return f"L{len(encodings)}T{parse_scalability_mode(mode).temporal_layers}"
    return mode
