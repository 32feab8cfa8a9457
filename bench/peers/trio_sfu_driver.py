"""This project's own server as a peer among others."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.peer import RemoteParameters
from bench.peers import Expected, LocalParameters, Running, Session, Subscription
from bench.rtp import TRANSPORT_CC_URI, StreamFormat
from bench.server_process import running_server
from bench.signalling_client import SignallingClient


class TrioSfuSession:
    """See :class:`bench.peers.Session`."""

    def __init__(self, url: str, room: str, *, create: bool) -> None:
        self._client = SignallingClient(url)
        self._room = room
        self._client.request("createRoom" if create else "joinRoom", {"roomId": room})
        self.producer_ids: list[str] = []

    def publish(self, local: LocalParameters, streams: Sequence[StreamFormat]) -> RemoteParameters:
        reply = self._client.request("createProducerTransport", {"roomId": self._room})
        self._connect("connectProducerTransport", local)
        for stream in streams:
            request = {"roomId": self._room, "kind": stream.kind, "rtpParameters": stream.rtp_parameters()}
            self.producer_ids.append(self._client.request("produce", request)["id"])
        return RemoteParameters.from_reply(reply)

    def subscribe(self, local: LocalParameters, publishers: Sequence[Session]) -> Subscription:
        capabilities = self._client.request("getRouterRtpCapabilities", {"roomId": self._room})["rtpCapabilities"]
        reply = self._client.request("createConsumerTransport", {"roomId": self._room})
        self._connect("connectConsumerTransport", local)
        wanted: list[str] = []
        for publisher in publishers:
            assert isinstance(publisher, TrioSfuSession)
            wanted += publisher.producer_ids
        streams, transport_cc_id = [], 0
        for producer_id in wanted:
            request = {"roomId": self._room, "producerId": producer_id, "rtpCapabilities": capabilities}
            consumer = self._client.request("consume", request)
            parameters: dict[str, Any] = consumer["rtpParameters"]
            encoding = parameters["encodings"][0]
            streams.append(Expected(consumer["kind"], encoding["ssrc"], encoding.get("rtx", {}).get("ssrc")))
            for extension in parameters.get("headerExtensions", []):
                if extension["uri"] == TRANSPORT_CC_URI:
                    transport_cc_id = extension["id"]
        return Subscription(RemoteParameters.from_reply(reply), tuple(streams), transport_cc_id)

    def fileno(self) -> int:
        return self._client.fileno()

    def read_waiting(self) -> None:
        self._client.read_waiting()

    def close(self) -> None:
        self._client.close()

    def _connect(self, event: str, local: LocalParameters) -> None:
        fingerprint = {"algorithm": "sha-256", "value": local.fingerprint}
        parameters = {"role": "client", "fingerprints": [fingerprint]}
        self._client.request(event, {"roomId": self._room, "dtlsParameters": parameters})


class TrioSfuServer:
    """See :class:`bench.peers.Running`; of a server that somebody has started."""

    _numbers = itertools.count(1)

    def __init__(self, url: str, pids: Sequence[int]) -> None:
        self.url = url
        self.pids = tuple(pids)
        self._rooms: dict[str, str] = {}

    def join(self, room: str) -> Session:
        """The name is made unique: one server may see many runs."""
        known = room in self._rooms
        if not known:
            self._rooms[room] = f"{room}-{next(self._numbers)}"
        return TrioSfuSession(self.url, self._rooms[room], create=not known)

    def name_of(self, room: str) -> str:
        """What the server knows a room by that somebody has joined."""
        return self._rooms[room]


class TrioSfuDriver:
    """See :class:`bench.peers.Driver`. Live streams are off: the others have none."""

    name = "trio_sfu"
    real_media = False

    def __init__(self, options: Sequence[str] = ("--no-hls",), tree: Path | None = None) -> None:
        """``tree``: another checkout whose server it is to be."""
        self._options = tuple(options)
        self._tree = tree

    def missing(self) -> str | None:
        return None

    @contextmanager
    def start(self, cpu: int | None) -> Iterator[Running]:
        with running_server(self._options, cpu=cpu, tree=self._tree) as server:
            yield TrioSfuServer(server.url, [server.pid])


DRIVER = TrioSfuDriver()
