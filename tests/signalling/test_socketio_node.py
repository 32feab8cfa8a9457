"""The real socket.io-client from npm, under Node.js, against the server: every transport it has."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from tests.support.front_door import nothing_left, open_front_door
from tests.support.node import NODE_MODULES, node_executable, npm_package
from tests.support.protocol import LOCAL, NOTHING, a_server, holds
from tests.support.until import until
from trio_sfu.protocols.engineio import EngineConfig
from trio_sfu.signalling.engineio import engineio_routes
from trio_sfu.signalling.socketio import Socket, open_socketio

SCRIPT = Path(__file__).parent / "socketio_node" / "client.cjs"


class Application:
    """What the script expects of the server."""

    def __init__(self) -> None:
        self.connected_ids: list[str] = []
        self.ended: list[tuple[str, str]] = []

    async def connected(self, socket: Socket, auth: object) -> None:
        self.connected_ids.append(socket.id)
        socket.emit("auth", auth)

    async def event(self, socket: Socket, name: str, args: list[object]) -> list[object]:
        match name:
            case "message":
                socket.emit("message-back", *args)
            case "message-with-ack":
                return args
            case "call":
                return [await socket.call("called", *args, timeout=5)]
            case "drop":
                socket._client._engine.abort("transport close")  # as if the connection were lost
            case "disconnect-me":
                socket.disconnect()
        return []

    async def disconnected(self, socket: Socket, reason: str) -> None:
        self.ended.append((socket.id, reason))


@pytest.mark.parametrize(
    ("transports", "path", "last"),
    [
        ("polling", "/ws", "polling"),
        ("websocket", "/socket.io/", "websocket"),
        ("polling,websocket", "/ws", "websocket"),
    ],
)
async def test_socket_io_client(transports: str, path: str, last: str) -> None:
    npm_package("socket.io-client")
    application = Application()
    config = EngineConfig(ping_interval=0.3, ping_timeout=2.0)
    async with nothing_left():
        async with (
            open_socketio(application, config) as server,
            open_front_door(engineio_routes(server)) as door,
        ):
            with trio.fail_after(60):
                result = await trio.run_process(
                    [node_executable(), SCRIPT, NODE_MODULES, door.url, path, transports],
                    capture_stdout=True,
                    capture_stderr=True,
                    check=False,
                )
            assert result.returncode == 0, _output(result)
            await until(lambda: not server.session_count)
        assert server.session_count == 0
    report = json.loads(result.stdout)
    assert report["transports"] == [last]
    assert report["ids"] == application.connected_ids
    assert len(set(report["ids"])) == 3
    assert report["reasons"][1:] == ["io server disconnect", "io client disconnect"]
    reasons = ["transport close", "server namespace disconnect", "client namespace disconnect"]
    assert application.ended == list(zip(report["ids"], reasons, strict=True))


@pytest.mark.parametrize("transports", ["polling", "websocket", "polling,websocket"])
async def test_coming_back(transports: str) -> None:
    npm_package("socket.io-client")
    async with a_server(replace(LOCAL, resume_grace=60.0)) as server:
        with trio.fail_after(60):
            result = await trio.run_process(
                [node_executable(), SCRIPT.with_name("resume.cjs"), NODE_MODULES, server.url, transports],
                capture_stdout=True,
                capture_stderr=True,
                check=False,
            )
        assert result.returncode == 0, _output(result)
        await until(lambda: holds(server) == NOTHING)
        figures = dict(line.rsplit(" ", 1) for line in server.metrics.render().splitlines() if line[:1] != "#")
    assert figures["trio_sfu_resumption_resumed_total"] == "2"
    report = json.loads(result.stdout)
    assert len(set(report["ids"])) == 3
    assert report["userId"] == report["ids"][0]


def _output(result: subprocess.CompletedProcess[bytes]) -> str:
    return (result.stdout + result.stderr).decode(errors="replace")
