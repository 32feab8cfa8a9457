"""trio_sfu.media.ortc against clients that send what no browser would."""

import copy
import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.mediasoup_device import Device
from trio_sfu.media.capabilities import router_rtp_capabilities
from trio_sfu.media.codec_matching import is_rtx
from trio_sfu.media.errors import MediaError
from trio_sfu.media.ortc import (
    get_consumable_rtp_parameters,
    get_consumer_rtp_parameters,
    get_producer_mapping,
    validate_rtp_parameters,
)
from trio_sfu.media.parameters import RtpCapabilities, RtpParameters

Json = dict[str, Any]
ROUTER = router_rtp_capabilities()
ROUTER_JSON: Json = msgspec.to_builtins(ROUTER)

_words = ["", "video/rtx", "video/VP8", "audio/opus", "video/H264", "a\n", "r0"]
_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-1, 2**32)
    | st.sampled_from(_words)
    | st.sampled_from([96, 97, 0, 255, 1.5])
)
_json = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside ``value``."""
    if isinstance(value, dict):
        items: Any = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    else:
        items = ()
    places = [path] if path else []
    for key, inner in items:
        places += _places(inner, (*path, key))
    return places


def _mutated(value: Json, data: st.DataObject) -> Json:
    value = copy.deepcopy(value)
    for _ in range(data.draw(st.integers(0, 3))):
        places = _places(value)
        if not places:
            break
        *path, last = data.draw(st.sampled_from(places))
        parent: Any = value
        for key in path:
            parent = parent[key]
        change = data.draw(st.sampled_from(["replace", "delete", "repeat"]))
        if change == "replace":
            parent[last] = data.draw(_json)
        elif change == "delete":
            del parent[last]
        elif isinstance(parent, list):
            parent.append(copy.deepcopy(parent[last]))
    return value


@settings(max_examples=200, deadline=None)
@given(
    data=st.data(),
    browser=st.sampled_from(["chrome", "firefox", "safari"]),
    kind=st.sampled_from(["audio", "video"]),
)
def test_hostile_parameters_end_in_one_of_two_errors(data: st.DataObject, browser: str, kind: Any) -> None:
    """Invariant: mutated parameters raise ValidationError or MediaError, or negotiate to valid parameters
    that use the router's payload types and extension ids only."""
    device = Device(browser, ROUTER_JSON)
    try:
        parameters = msgspec.convert(_mutated(device.sending_parameters(kind), data), RtpParameters)
        capabilities = msgspec.convert(_mutated(device.rtp_capabilities, data), RtpCapabilities)
        validate_rtp_parameters(kind, parameters)
        mapping = get_producer_mapping(kind, parameters, ROUTER)
        consumable = get_consumable_rtp_parameters(kind, parameters, ROUTER, mapping)
        consumer = get_consumer_rtp_parameters(
            consumable, capabilities, mid="0007", ssrc=1111, rtx_ssrc=2222, cname="c"
        )
    except (msgspec.ValidationError, MediaError):
        return
    text = json.dumps(msgspec.to_builtins(consumer), allow_nan=False)
    validate_rtp_parameters(kind, msgspec.convert(json.loads(text), RtpParameters))
    router_types = {codec.preferred_payload_type for codec in ROUTER.codecs}
    assert {codec.payload_type for codec in consumer.codecs} <= router_types
    assert set(mapping.payload_types.values()) <= router_types
    assert not is_rtx(consumer.codecs[0])
    router_ids = {(extension.uri, extension.preferred_id) for extension in ROUTER.header_extensions}
    assert {(extension.uri, extension.id) for extension in consumer.header_extensions} <= router_ids
