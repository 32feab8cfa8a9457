"""A relay made of aiortc's own parts, as its examples make one: ``MediaRelay`` from each track to each who wants it.

    python -m bench.peers.aiortc_relay

A program of its own, started by :mod:`bench.peers.aiortc_driver`; it prints the path of its Unix socket. There a
line of JSON is a request and a line is its answer: ``{"publish": SDP, "id": N}`` or ``{"subscribe": SDP, "from":
[N, …]}``, both answered with ``{"sdp": SDP}`` or ``{"error": …}``. It ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import aioice.ice
from aiortc import MediaStreamTrack, RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaRelay

aioice.ice.get_host_addresses = lambda **_: ["127.0.0.1"]


class Relay:
    """All connections and tracks; users are numbers that the driver gives."""

    def __init__(self) -> None:
        self._relay = MediaRelay()
        self._tracks: dict[int, list[MediaStreamTrack]] = {}
        self._connections: list[RTCPeerConnection] = []

    async def publish(self, sdp: str, user: int) -> str:
        connection = self._connection()
        tracks = self._tracks.setdefault(user, [])
        connection.on("track", tracks.append)
        return await self._answer(connection, sdp)

    async def subscribe(self, sdp: str, users: list[int]) -> str:
        connection = self._connection()
        await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        for user in users:
            for track in self._tracks[user]:
                connection.addTrack(self._relay.subscribe(track, buffered=False))
        return await self._answer(connection, None)

    def _connection(self) -> RTCPeerConnection:
        connection = RTCPeerConnection()
        self._connections.append(connection)
        return connection

    async def _answer(self, connection: RTCPeerConnection, sdp: str | None) -> str:
        if sdp is not None:
            await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        answer: str = connection.localDescription.sdp
        return answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            request: dict[str, Any] = json.loads(line)
            try:
                if "publish" in request:
                    reply = {"sdp": await self.publish(request["publish"], request["id"])}
                else:
                    reply = {"sdp": await self.subscribe(request["subscribe"], request["from"])}
            except Exception as error:
                reply = {"error": repr(error)}
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
        writer.close()


async def main() -> None:
    with tempfile.TemporaryDirectory(prefix="trio-sfu-aiortc-") as folder:
        path = Path(folder) / "socket"
        async with await asyncio.start_unix_server(Relay().serve, path, limit=1 << 20):
            print(path, flush=True)
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main())
