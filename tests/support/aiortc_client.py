"""A user on python-socketio and aiortc: clients of other people's making, which share no code with the server.

::

    async def call() -> None:
        async with aiortc_user(url) as sender, aiortc_user(url, sender.room_id) as viewer:
            video = await sender.produce(PictureTrack(), "VP8")
            stream = await viewer.consume(video)
            frames = await stream.frames(30)

    run_client(call)

It does what mediasoup-client does in a browser, with aiortc's ORTC objects instead of session descriptions. What it
sends has aiortc's own payload types and header extension ids, which differ from the router's.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any, Final, Literal, TypeAlias, TypeVar
from unittest.mock import patch

import socketio
from aiortc import (
    MediaStreamTrack,
    RTCCertificate,
    RTCDtlsFingerprint,
    RTCDtlsParameters,
    RTCDtlsTransport,
    RTCIceCandidate,
    RTCIceGatherer,
    RTCIceParameters,
    RTCIceTransport,
    RTCRtpReceiver,
    RTCRtpSender,
)
from aiortc.rtcrtpreceiver import RemoteStreamTrack

from tests.support.aiortc_parameters import (
    produce_parameters,
    receive_capabilities,
    receive_parameters,
    send_parameters,
)

__all__ = [
    "AiortcError",
    "AiortcUser",
    "Loss",
    "Received",
    "aiortc_user",
    "in_background",
    "run_client",
    "wait_stats",
]

Json: TypeAlias = dict[str, Any]
DtlsRole: TypeAlias = Literal["client", "server"]
ResultT = TypeVar("ResultT")

STEP_SECONDS: Final = 10.0


class AiortcError(Exception):
    """The server refused a request; ``code`` is its code."""

    def __init__(self, event: str, reply: Json) -> None:
        super().__init__(f"{event}: {reply.get('error')} ({reply.get('code')})")
        self.code = reply.get("code")


@contextmanager
def in_background(
    main: Callable[[], Coroutine[Any, Any, ResultT]], *, seconds: float = 30
) -> Iterator[Future[ResultT]]:
    """Run ``main`` in an asyncio loop of another thread, for at most ``seconds``; the block's end waits for it.

    A thread, because Playwright's synchronous API keeps a loop "running" in the main one until all tests are over.
    """

    async def bounded() -> ResultT:
        return await asyncio.wait_for(main(), seconds)

    with ThreadPoolExecutor(1) as executor:
        yield executor.submit(lambda: asyncio.run(bounded()))


def run_client(main: Callable[[], Coroutine[Any, Any, ResultT]], *, seconds: float = 30) -> ResultT:
    """The result of ``main``, run as :func:`in_background` does. Raises TimeoutError after ``seconds``."""
    with in_background(main, seconds=seconds) as task:
        return task.result()


async def wait_stats(source: RTCRtpSender | RTCRtpReceiver, kind: str) -> Any:
    """aiortc's statistics of that type ("remote-inbound-rtp", …), once there are any. Raises TimeoutError."""
    async with asyncio.timeout(STEP_SECONDS):
        while True:
            for each in (await source.getStats()).values():
                if each.type == kind:
                    return each
            await asyncio.sleep(0.02)


class Loss:
    """Loses every so manieth RTP packet of one direction, and no RTCP."""

    def __init__(self, *, every: int) -> None:
        self.every = every
        self.packets = 0
        self.lost = 0

    def loses(self, data: bytes) -> bool:
        """Whether this datagram, which leaves or comes in now, is lost."""
        if not 127 < data[0] < 192 or 192 <= data[1] <= 223:  # RFC 7983, RFC 5761
            return False
        self.packets += 1
        if self.packets % self.every:
            return False
        self.lost += 1
        return True


class Received:
    """A consumer and what aiortc decodes of it."""

    def __init__(self, reply: Json, receiver: RTCRtpReceiver) -> None:
        self.id: str = reply["id"]
        self.kind: str = reply["kind"]
        self.rtp_parameters: Json = reply["rtpParameters"]
        self.receiver = receiver

    async def frames(self, number: int) -> list[Any]:
        """The next decoded frames (av.VideoFrame or av.AudioFrame). Raises TimeoutError, and MediaStreamError where
        the stream has ended."""
        async with asyncio.timeout(STEP_SECONDS):
            return [await self.receiver.track.recv() for _ in range(number)]


class _Transport:
    """ICE and DTLS of one direction; connected at its first use, as mediasoup-client does it."""

    def __init__(self, reply: Json, role: DtlsRole) -> None:
        self._remote = reply
        self._gatherer = RTCIceGatherer(iceServers=[])
        self.ice = RTCIceTransport(self._gatherer)
        # aiortc leaves the roles to its RTCPeerConnection: the server is lite, so this side is in control.
        self.ice._connection.ice_controlling = True
        self.dtls = RTCDtlsTransport(self.ice, [RTCCertificate.generateCertificate()])
        self.dtls._set_role(role)
        self.dtls_parameters = {
            "role": role,
            "fingerprints": [
                {"algorithm": each.algorithm, "value": each.value}
                for each in self.dtls.getLocalParameters().fingerprints
            ],
        }

    async def connect(self) -> None:
        """Raises TimeoutError or AssertionError."""
        candidates = [each for each in self._remote["iceCandidates"] if each["protocol"] == "udp"]
        local = [each["ip"] for each in candidates if each["ip"] in ("127.0.0.1", "::1")]
        with ExitStack() as stack:
            if local:  # which aiortc would not use by itself, so that it fails on a machine without a network
                stack.enter_context(patch("aioice.ice.get_host_addresses", return_value=local))
            await self._gatherer.gather()
        for each in candidates:
            await self.ice.addRemoteCandidate(
                RTCIceCandidate(
                    component=1,
                    foundation=each["foundation"],
                    ip=each["ip"],
                    port=each["port"],
                    priority=each["priority"],
                    protocol=each["protocol"],
                    type=each["type"],
                )
            )
        await self.ice.addRemoteCandidate(None)
        ice, dtls = self._remote["iceParameters"], self._remote["dtlsParameters"]
        async with asyncio.timeout(STEP_SECONDS):
            await self.ice.start(RTCIceParameters(ice["usernameFragment"], ice["password"], ice["iceLite"]))
            assert self.ice.state == "completed", self.ice.state
            fingerprints = [RTCDtlsFingerprint(each["algorithm"], each["value"]) for each in dtls["fingerprints"]]
            await self.dtls.start(RTCDtlsParameters(fingerprints, dtls["role"]))
        assert self.dtls.state == "connected", self.dtls.state

    async def close(self) -> None:
        await self.dtls.stop()
        await self.ice.stop()


class AiortcUser:
    """Made by :func:`aiortc_user`."""

    def __init__(
        self, client: Any, room_id: str, *, dtls_role: DtlsRole, lose_sent: Loss | None, lose_received: Loss | None
    ) -> None:
        self.room_id = room_id
        self.senders: dict[str, RTCRtpSender] = {}
        """By producer id."""
        self.received: dict[str, Received] = {}
        """By consumer id."""
        self.events: list[tuple[str, Any]] = []
        self._news = asyncio.Event()
        self._client = client
        self._role: DtlsRole = dtls_role
        self._lose_sent = lose_sent
        self._lose_received = lose_received
        self._transports: dict[str, _Transport] = {}
        self._mids = iter(range(1000))
        client.on("*", self._note)

    @property
    def user_id(self) -> str:
        return str(self._client.get_sid())

    async def request(self, event: str, **payload: Any) -> Json:
        """One request about this room. Raises AiortcError on an error ack."""
        return await _request(self._client, event, roomId=self.room_id, **payload)

    async def produce(self, track: MediaStreamTrack, codec: str = "opus") -> str:
        """Send ``track`` (``codec``: "VP8", "H264", "opus"); returns the producer's id."""
        router = (await self.request("getRouterRtpCapabilities"))["rtpCapabilities"]
        transport = await self._open("Producer")
        sender = RTCRtpSender(track, transport.dtls)
        parameters = send_parameters(track.kind, codec, str(next(self._mids)), sender, router)
        if transport.dtls.state == "new":
            await self._connect("Producer")
        reply = await self.request("produce", kind=track.kind, rtpParameters=produce_parameters(parameters, sender))
        self.senders[reply["id"]] = sender
        await sender.send(parameters)
        return str(reply["id"])

    async def consume(self, producer_id: str, *, paused: bool = True) -> Received:
        """Receive a producer; ``paused``: ask for a paused consumer, and resume it when aiortc is ready."""
        router = (await self.request("getRouterRtpCapabilities"))["rtpCapabilities"]
        transport = await self._open("Consumer")
        reply = await self.request(
            "consume", producerId=producer_id, rtpCapabilities=receive_capabilities(router), paused=paused
        )
        receiver = RTCRtpReceiver(reply["kind"], transport.dtls)
        receiver._track = RemoteStreamTrack(reply["kind"])
        receiver._set_rtcp_ssrc(random.getrandbits(32))
        await receiver.receive(receive_parameters(reply["rtpParameters"]))
        received = self.received[reply["id"]] = Received(reply, receiver)
        if transport.dtls.state == "new":
            await self._connect("Consumer")
        if paused:
            await self.request("resumeConsumer", consumerId=received.id)
        return received

    async def producers(self) -> dict[str, str]:
        """The others' producers: ids by kind."""
        return {each["kind"]: each["producerId"] for each in (await self.request("listProducers"))["producers"]}

    async def wait_event(self, name: str, **match: Any) -> Json:
        """The first event of that name with those values, past or to come in time (else TimeoutError)."""
        async with asyncio.timeout(STEP_SECONDS):
            while True:
                for known, payload in self.events:
                    if known == name and all(payload.get(key) == value for key, value in match.items()):
                        return dict(payload)
                self._news.clear()
                await self._news.wait()

    def negotiated(self) -> dict[str, str]:
        """The SRTP profile of each transport: "Producer", "Consumer"."""
        profiles = {}
        for side, transport in self._transports.items():
            assert transport.dtls._ssl is not None
            profiles[side] = transport.dtls._ssl.get_selected_srtp_profile().decode()
        return profiles

    def transport_states(self) -> dict[str, str]:
        """The DTLS state of each transport."""
        return {side: transport.dtls.state for side, transport in self._transports.items()}

    async def disconnect(self) -> None:
        """Close the socket and nothing else."""
        await self._client.disconnect()

    async def close_media(self) -> None:
        """End all sending, receiving and the transports, on this side only."""
        for sender in self.senders.values():
            await sender.stop()
        for received in self.received.values():
            await received.receiver.stop()
        for transport in self._transports.values():
            await transport.close()
        self.senders.clear()
        self.received.clear()
        self._transports.clear()

    async def _open(self, side: str) -> _Transport:
        if side not in self._transports:
            transport = _Transport(await self.request(f"create{side}Transport"), self._role)
            _lose(transport.ice, self._lose_sent, self._lose_received)
            self._transports[side] = transport
        return self._transports[side]

    async def _connect(self, side: str) -> None:
        transport = self._transports[side]
        await self.request(f"connect{side}Transport", dtlsParameters=transport.dtls_parameters)
        await transport.connect()

    async def _note(self, name: str, payload: Any = None) -> None:
        self.events.append((name, payload))
        self._news.set()


@asynccontextmanager
async def aiortc_user(
    url: str,
    room: str | None = None,
    *,
    path: str = "ws",
    dtls_role: DtlsRole = "client",
    lose_sent: Loss | None = None,
    lose_received: Loss | None = None,
) -> AsyncIterator[AiortcUser]:
    """A user in ``room``, or in a new one, whose socket and media are closed when the block ends.

    :param path: of Engine.IO, which begins with polling and goes on to a WebSocket.
    :param lose_sent, lose_received: what its network does to it.

    Raises AiortcError where the room cannot be joined.
    """
    client = socketio.AsyncClient(reconnection=False, handle_sigint=False)
    await client.connect(url, socketio_path=path, wait_timeout=STEP_SECONDS)
    try:
        event, payload = ("createRoom", {}) if room is None else ("joinRoom", {"roomId": room})
        room_id = (await _request(client, event, **payload))["roomId"]
        user = AiortcUser(client, room_id, dtls_role=dtls_role, lose_sent=lose_sent, lose_received=lose_received)
        try:
            yield user
        finally:
            await user.close_media()
    finally:
        await client.disconnect()


async def _request(client: Any, event: str, **payload: Any) -> Json:
    reply = await client.call(event, payload, timeout=STEP_SECONDS)
    assert isinstance(reply, dict), f"{event}: {reply!r}"
    if "error" in reply:
        raise AiortcError(event, reply)
    return reply


def _lose(ice: RTCIceTransport, sent: Loss | None, received: Loss | None) -> None:
    send, receive = ice._send, ice._recv

    async def lossy_send(data: bytes) -> None:
        if sent is None or not sent.loses(data):
            await send(data)

    async def lossy_receive() -> bytes:
        while True:
            data = await receive()
            if received is None or not received.loses(data):
                return data

    ice._send, ice._recv = lossy_send, lossy_receive
