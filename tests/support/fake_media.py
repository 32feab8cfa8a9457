"""Stand-ins for the router and its transports, producers and consumers: the contract without media.

For tests of rooms and signalling. ``FakeMedia`` counts what is open, so that a test can say that
nothing was left, and can be told to hit a bug.
"""

from collections.abc import Callable, Collection
from types import SimpleNamespace
from typing import Any, cast
from uuid import uuid4

import trio

from trio_sfu.media.capabilities import router_rtp_capabilities
from trio_sfu.media.errors import MediaError
from trio_sfu.media.frame_mark import Layers
from trio_sfu.media.ortc import get_producer_mapping
from trio_sfu.media.parameters import (
    DtlsFingerprint,
    DtlsParameters,
    IceCandidate,
    IceParameters,
    MediaKind,
    RtpCapabilities,
    RtpParameters,
)
from trio_sfu.rooms.room import RoomMedia


class FakeConsumer:
    type = "simple"

    def __init__(self, media: "FakeMedia", producer: "FakeProducer", paused: bool) -> None:
        self.id = str(uuid4())
        self.media = media
        self.producer = producer
        self.kind = producer.kind
        self.rtp_parameters = producer.rtp_parameters
        self.paused = paused
        self.closed = False
        self.key_frame_requests = 0
        self.on_layers_change: Callable[[Layers | None], None] | None = None
        self.on_score_change: Callable[[], None] | None = None
        self.priority = 1
        media.open.add(self)

    @property
    def producer_paused(self) -> bool:
        return self.producer.paused

    def pause(self) -> None:
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def set_preferred_layers(self, layers: Layers) -> Layers | None:
        return None

    def request_key_frame(self, *, urgent: bool = True) -> None:
        self.key_frame_requests += 1

    def close(self) -> None:
        self.closed = True
        self.media.open.discard(self)


class FakeProducer:
    type = "simple"

    def __init__(
        self, media: "FakeMedia", kind: MediaKind, rtp_parameters: RtpParameters, app_data: dict[str, Any]
    ) -> None:
        self.id = str(uuid4())
        self.media = media
        self.kind = kind
        self.rtp_parameters = rtp_parameters
        self.app_data = app_data
        self.paused = False
        self.closed = False
        self.streams: dict[int, object] = {}
        self.consumers: list[FakeConsumer] = []
        media.open.add(self)

    def pause(self) -> None:
        self.media.maybe_fail("pause")
        self.paused = True

    def resume(self) -> None:
        self.paused = False

    def close(self) -> None:
        self.media.maybe_fail("close")
        self.closed = True
        self.media.open.discard(self)
        for consumer in self.consumers:
            consumer.close()


class FakeRouter:
    def __init__(self, media: "FakeMedia") -> None:
        self.media = media
        self.rtp_capabilities = router_rtp_capabilities()
        self.ticks: list[float] = []
        self.ticked: Callable[[], None] = lambda: None

    def produce(
        self,
        transport: "FakeTransport",
        kind: MediaKind,
        rtp_parameters: RtpParameters,
        app_data: dict[str, Any],
        *,
        replacing: Collection[FakeProducer] = (),
    ) -> FakeProducer:
        if not rtp_parameters.codecs:
            raise MediaError("invalid-rtp-parameters", "There must be a codec")
        get_producer_mapping(kind, rtp_parameters, self.rtp_capabilities)
        for old in replacing:
            old.close()
        producer = FakeProducer(self.media, kind, rtp_parameters, app_data)
        transport.streams.append(producer)
        return producer

    def consume(
        self,
        transport: "FakeTransport",
        producer: FakeProducer,
        rtp_capabilities: RtpCapabilities,
        *,
        paused: bool,
        preferred_layers: Layers | None = None,
    ) -> FakeConsumer:
        self.media.maybe_fail("consume")
        if not rtp_capabilities.codecs:
            raise MediaError("cannot-consume", "There is no codec in common")
        consumer = FakeConsumer(self.media, producer, paused)
        producer.consumers.append(consumer)
        transport.streams.append(consumer)
        return consumer

    def tick(self, now: float) -> None:
        self.media.maybe_fail("tick")
        self.ticks.append(now)
        self.ticked()


class FakeTransport:
    def __init__(self, media: "FakeMedia", router: FakeRouter) -> None:
        self.id = str(uuid4())
        self.media = media
        self.ice_parameters = IceParameters(username_fragment="abcd", password="p" * 22, ice_lite=True)
        candidate = IceCandidate(
            foundation="1",
            priority=1,
            ip="192.0.2.1",
            address="192.0.2.1",
            protocol="udp",
            port=44444,
            type="host",
        )
        self.ice_candidates = (candidate,)
        self.dtls_parameters = dtls_parameters()
        self.state = "new"
        self.failure: str | None = None
        self.on_fault: Callable[[Exception], None] | None = None
        self.streams: list[FakeProducer | FakeConsumer] = []
        self.ended = trio.Event()
        media.transports.append(self)

    def connect(self, parameters: DtlsParameters) -> None:
        if self.state != "new":
            raise MediaError("already-connected", "The transport is connected already")
        self.state = "connecting"

    def restart_ice(self) -> IceParameters:
        if self.state in ("closed", "failed"):
            raise MediaError("transport-closed", "The transport is closed")
        self.ice_parameters = IceParameters(username_fragment=uuid4().hex, password="p" * 22, ice_lite=True)
        return self.ice_parameters

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        self.media.maybe_fail("run")
        self.media.open.add(self)
        try:
            task_status.started()
            await self.ended.wait()
        finally:
            self.media.open.discard(self)
            for stream in self.streams:
                stream.close()

    def lose(self) -> None:
        """As when consent expires."""
        self.state = "failed"
        self.failure = "no packet for 30 seconds"
        self.ended.set()

    def close(self) -> None:
        self.state = "closed"
        self.ended.set()


class FakeMedia:
    """Makes all of the above. ``bugs``: names of the steps that raise from now on."""

    def __init__(self) -> None:
        self.open: set[object] = set()
        self.routers: list[FakeRouter] = []
        self.transports: list[FakeTransport] = []
        self.bugs: set[str] = set()

    def maybe_fail(self, step: str) -> None:
        if step in self.bugs:
            raise ZeroDivisionError(f"injected into {step}")

    def router(self) -> FakeRouter:
        self.routers.append(FakeRouter(self))
        return self.routers[-1]

    def room_media(self) -> RoomMedia:
        return RoomMedia(
            router=cast(Any, self.router),
            transport=cast(Any, lambda router: FakeTransport(self, router)),
        )

    def open_counts(self) -> SimpleNamespace:
        def how_many(kind: type) -> int:
            return sum(isinstance(item, kind) for item in self.open)

        return SimpleNamespace(
            transports=how_many(FakeTransport),
            producers=how_many(FakeProducer),
            consumers=how_many(FakeConsumer),
        )


def dtls_parameters() -> DtlsParameters:
    return DtlsParameters(role="auto", fingerprints=(DtlsFingerprint(algorithm="sha-256", value="AA:" * 31 + "AA"),))
