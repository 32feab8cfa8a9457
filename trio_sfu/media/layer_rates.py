"""The bit rate of each layer of an incoming stream: what consumers may have for what they are allowed.

Counted by the incoming stream, sampled by the session once a second with the other counters.
"""

from typing import Final

from trio_sfu.media.frame_mark import Layers
from trio_sfu.media.rates import Rates

__all__ = ["LayerRates"]


class LayerRates:
    """Payload octets by layer; at most 64 of them, as many as there can be."""

    __slots__ = ("_octets", "_rates")

    def __init__(self) -> None:
        self._octets: Final[dict[Layers, int]] = {}
        self._rates: Final[dict[Layers, Rates]] = {}

    def add(self, layers: Layers, octets: int) -> None:
        """A packet of ``layers`` has come."""
        self._octets[layers] = self._octets.get(layers, 0) + octets

    def sample(self, now: float) -> None:
        """To be called about once a second."""
        for layers, octets in self._octets.items():
            rates = self._rates.get(layers)
            if rates is None:
                rates = self._rates[layers] = Rates()
                rates.sample((0,), now - 1.0)  # it began less than a second ago
            rates.sample((octets,), now)

    def read(self, now: float) -> dict[Layers, int]:
        """The bit rate of each layer by itself, without those below it; layers that have ended are left out."""
        found = {layers: rates.read((self._octets[layers],), now)[0] for layers, rates in self._rates.items()}
        return {layers: bitrate for layers, bitrate in found.items() if bitrate}
