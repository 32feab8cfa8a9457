"""Scalability modes such as ``L3T3_KEY`` and ``S3T2`` (W3C WebRTC-SVC section 6): parsing only."""

import re
from typing import NamedTuple

_MODE = re.compile(r"[LS]([1-9][0-9]?)T([1-9][0-9]?)(_KEY)?", re.ASCII)


class ScalabilityMode(NamedTuple):
    """How many layers a stream has. ``ksvc``: spatial layers depend on each other in key frames only."""

    spatial_layers: int
    temporal_layers: int
    ksvc: bool


def parse_scalability_mode(mode: str | None) -> ScalabilityMode:
    """Parse ``mode``; what is absent or no mode at all has one layer of each, as in mediasoup."""
    found = _MODE.match(mode or "")
    if found is None:
        return ScalabilityMode(1, 1, False)
    return ScalabilityMode(int(found[1]), int(found[2]), found[3] is not None)
