"""The whole server: put together in this process, and as a process of its own."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trio

from tests.support.certificate import write_certificate
from tests.support.front_door import nothing_left
from tests.support.http_client import connect_http, fetch
from tests.support.socketio_client import connect_socketio
from trio_sfu.config import Config
from trio_sfu.server import CannotStart, Server, open_server
from trio_sfu.transport.addresses import local_addresses

LOCAL = Config(host="127.0.0.1", port=0, media_port=0)


@asynccontextmanager
async def a_server(config: Config = LOCAL, dist: Path | None = None) -> AsyncIterator[Server]:
    async with nothing_left():
        async with open_server(config, dist=dist or Path("/nonexistent")) as server:
            yield server
        assert server.rooms.counts()[0] == 0
        assert server.endpoint.transport_count == 0


@pytest.mark.parametrize("transport", ["websocket", "polling"])
@pytest.mark.parametrize("path", ["/ws", "/ws/", "/socket.io", "/socket.io/"])
async def test_signalling(transport: str, path: str) -> None:
    async with a_server() as server, connect_socketio(server.url, transport=transport, path=path) as client:  # type: ignore[arg-type]
        room = await client.request("createRoom", {})
        assert (await client.next_event("peersChanged"))[0]["peers"] == [{"userId": client.sid, "name": None}]
        created = await client.request("createProducerTransport", room)
        candidate = created["iceCandidates"][0]
        assert (candidate["address"], candidate["port"]) == ("127.0.0.1", server.media[0].port)
        assert (await client.request("noSuchEvent"))["code"] == "unknown-event"
        assert (await client.request("joinRoom", b"bytes"))["code"] == "invalid-payload"


async def test_a_client_that_goes_leaves_nothing() -> None:
    async with a_server() as server:
        async with connect_socketio(server.url) as stays:
            async with connect_socketio(server.url) as goes:
                room = await goes.request("createRoom", {})
                assert await stays.request("joinRoom", room) == room
                await goes.request("createProducerTransport", room)
                await goes.request("createConsumerTransport", room)
                assert server.rooms.counts()[1].transports == 2
            while len(peers := (await stays.next_event("peersChanged"))[0]["peers"]) != 1:
                pass
            assert peers[0]["userId"] == stays.sid
            assert server.endpoint.transport_count == 0
        with trio.fail_after(5):
            while server.rooms.counts()[0]:  # noqa: ASYNC110 - there is nobody left to tell
                await trio.sleep(0.01)


async def test_the_end_tells_clients() -> None:
    async with nothing_left(), trio.open_nursery() as nursery:
        clients = []
        async with open_server(LOCAL) as server:
            for transport in ("websocket", "polling"):
                client = await nursery.start(_hold, server.url, transport)
                room = await client.request("createRoom", {})
                await client.request("createProducerTransport", room)
                clients.append(client)
        with trio.fail_after(2):
            for client in clients:
                await client.closed.wait()


async def _hold(url: str, transport: str, *, task_status: trio.TaskStatus[object]) -> None:
    async with connect_socketio(url, transport=transport) as client:  # type: ignore[arg-type]
        task_status.started(client)
        await client.closed.wait()


async def test_pages(tmp_path: Path) -> None:
    (tmp_path / "assets").mkdir()
    (tmp_path / "index.html").write_text("<title>start</title>")
    (tmp_path / "room.html").write_text("<title>room</title>")
    (tmp_path / "watch.html").write_text("<title>watch</title>")
    (tmp_path / "assets" / "index-ABC.js").write_text("1")
    async with a_server(dist=tmp_path) as server, connect_http(server.url) as http:
        start = await http.request("GET", "/")
        assert (start.status, start.text) == (200, "<title>start</title>")
        assert "default-src 'none'; script-src 'self'" in start.headers["content-security-policy"]
        assert "camera=(self)" in start.headers["permissions-policy"]
        for name in ("room", "watch"):
            page = await http.request("GET", f"/{name}/room_x7k2p9")
            assert (page.status, page.text) == (200, f"<title>{name}</title>")
            assert "media-src 'self' blob:" in page.headers["content-security-policy"]
            for path in (f"/{name}/", f"/{name}", f"/{name}/a/b", f"/{name}/" + "x" * 65):
                assert (await http.request("GET", path)).status == 404
        for path in ("/nothing", "/assets/../index.html"):
            assert (await http.request("GET", path)).status == 404
        asset = await http.request("GET", "/assets/index-ABC.js")
        assert (asset.status, asset.body) == (200, b"1")
        assert "immutable" in asset.headers["cache-control"]


async def test_pages_that_are_not_built(tmp_path: Path) -> None:
    async with a_server(dist=tmp_path) as server:
        for path in ("", "room/x", "watch/x"):
            answer = await fetch(f"{server.url}/{path}")
            assert answer.status == 503
            assert "hatch_build.py" in answer.text
            assert answer.headers["content-type"].startswith("text/html")


async def test_a_server_without_live_streams_says_so() -> None:
    async with a_server(replace(LOCAL, hls=None)) as server:
        for path in ("/hls/room/index.m3u8", "/hls/room/x/y.mp4", "/hls/"):
            answer = await fetch(server.url + path)
            assert (answer.status, json.loads(answer.text)["code"]) == (404, "no-live-streams")
    async with a_server() as server:  # one with streams, where this room has none
        answer = await fetch(f"{server.url}/hls/room/index.m3u8")
        assert (answer.status, "no-live-streams" in answer.text) == (404, False)


async def test_metrics_and_health() -> None:
    async with a_server() as server, connect_socketio(server.url) as client:
        await client.request("createRoom", {})
        await client.request("createProducerTransport", {})
        assert (await fetch(server.url + "/healthz")).text == "ok\n"
        answer = await fetch(server.url + "/metrics")
        assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
        values = dict(line.rsplit(" ", 1) for line in answer.text.splitlines() if not line.startswith("#"))
        for name in ("rooms", "peers", "transports", "udp_transports", "engineio_sessions", "socketio_sockets"):
            assert values[f"trio_sfu_{name}"] == "1", name
        assert values["trio_sfu_tcp_connections"] == "2"
        assert int(values["trio_sfu_tasks"]) > 5
        assert values['trio_sfu_udp_received_drops_total{reason="unknown"}'] == "0"
        assert values["trio_sfu_socketio_events_total"] == "2"


async def test_tls(tmp_path: Path) -> None:
    cert, key = write_certificate(tmp_path)
    config = Config(host="127.0.0.1", port=0, media_port=0, tls_cert=str(cert), tls_key=str(key))
    context = ssl.create_default_context(cafile=str(cert))
    async with a_server(config) as server:
        assert server.url.startswith("https://127.0.0.1:")
        assert (await fetch(server.url + "/healthz", tls=context)).status == 200
        async with connect_socketio(server.url, tls=context) as client:
            assert "roomId" in await client.request("createRoom", {})


async def test_options_reach_the_front_door() -> None:
    config = Config(
        host="127.0.0.1",
        port=0,
        media_port=0,
        ping_interval=0.3,
        ping_timeout=0.2,
        max_payload=2000,
        connect_timeout=0.1,
        announce=("203.0.113.5",),
    )
    async with a_server(config) as server:
        handshake = (await fetch(server.url + "/socket.io/?EIO=4&transport=polling")).text
        assert '"pingInterval":300,"pingTimeout":200,"maxPayload":2000' in handshake
        assert [address.announced_ips for address in server.media] == [("203.0.113.5",)]
        with trio.fail_after(5):
            while server.metrics.render().find("trio_sfu_engineio_sessions 0") < 0:  # noqa: ASYNC110 - as above
                await trio.sleep(0.02)


async def test_all_addresses() -> None:
    async with a_server(Config(port=0, media_port=0)) as server:
        assert server.url == f"http://localhost:{server.port}"
        assert (await fetch(f"http://127.0.0.1:{server.port}/healthz")).status == 200
        if "::1" in local_addresses():
            assert (await fetch(f"http://[::1]:{server.port}/healthz")).status == 200


async def test_ports_in_use() -> None:
    async with a_server() as server, nothing_left():
        with pytest.raises(CannotStart, match="in use by another program; choose another one with --port"):
            async with open_server(Config(host="127.0.0.1", port=server.port, media_port=0)):
                pass
        media_port = server.media[0].port
        with pytest.raises(CannotStart, match=r"UDP 127.0.0.1 port .* in use .*--media-port"):
            async with open_server(Config(host="127.0.0.1", port=0, media_port=media_port)):
                pass
        tcp_port = server.media_tcp[0].port
        with pytest.raises(CannotStart, match=r"TCP 127.0.0.1 port .* in use .*--media-tcp-port"):
            async with open_server(Config(host="127.0.0.1", port=0, media_port=0, media_tcp_port=tcp_port)):
                pass
        with pytest.raises(CannotStart, match="no such address"):
            async with open_server(Config(host="203.0.113.7", port=0, media_port=0)):
                pass


async def test_media_tcp() -> None:
    """By default it has the number of the UDP port; it can have another one, and none."""
    with socket.socket() as one, socket.socket() as other:
        for sock in (one, other):
            sock.bind(("127.0.0.1", 0))
        number, another = one.getsockname()[1], other.getsockname()[1]
    for wanted, expected in ((Config(media_port=number), number), (Config(media_tcp_port=another), another)):
        config = replace(wanted, host="127.0.0.1", port=0, media_port=0 if wanted.media_tcp_port else number, hls=None)
        async with a_server(config) as server:
            assert [each.port for each in server.media_tcp] == [expected]
            figures = server.metrics.render()
            assert "trio_sfu_media_tcp_connections 0" in figures
            async with await trio.open_tcp_stream("127.0.0.1", expected) as stream:
                await stream.send_all(b"\xff\xff")
                assert await stream.receive_some() == b""
            assert 'trio_sfu_media_tcp_refused_total{reason="invalid"} 1' in server.metrics.render()
    async with a_server(replace(LOCAL, media_tcp=False, hls=None)) as server, connect_socketio(server.url) as client:
        assert server.media_tcp == ()
        room = await client.request("createRoom", {})
        created = await client.request("createProducerTransport", room)
        assert [each["protocol"] for each in created["iceCandidates"]] == ["udp"]


def _run(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "trio_sfu", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, env={**os.environ, **env}, check=False)


def test_the_process_says_why_it_cannot_start() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        result = _run("--host", "127.0.0.1", "--media-port", "0", TRIO_SFU_PORT=port)
    assert result.returncode == 1
    assert result.stderr == (
        f"trio-sfu: TCP 127.0.0.1 port {port} is in use by another program; choose another one with --port\n"
    )
    assert result.stdout == ""
    assert _run("--port", "http").returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_the_process_ends_cleanly(number: signal.Signals) -> None:
    """Clients with transports, over both kinds of connection, are told; status 0, nothing to complain about."""
    command = [sys.executable, "-m", "trio_sfu", "--host", "127.0.0.1", "--port", "0", "--media-port", "0"]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    async with process.stdout, process.stderr, trio.open_nursery() as nursery:
        try:
            with trio.fail_after(20):
                output = b""
                while b"listening on http" not in output or not output.endswith(b"\n"):
                    output += await process.stdout.receive_some()
                ready = output.decode().splitlines()[-1]
                url = ready.removeprefix("listening on ").removesuffix("/")
                assert "media: clients are told to send to 127.0.0.1 port" in output.decode()
                clients = [await nursery.start(_hold, url, transport) for transport in ("websocket", "polling")]
                for client in clients:
                    room = await client.request("createRoom", {})
                    await client.request("createProducerTransport", room)
                process.send_signal(number)
                for client in clients:
                    await client.closed.wait()
                assert await process.wait() == 0
                log = b"".join([data async for data in process.stderr]).decode().splitlines()
        finally:
            process.kill()
        assert [line for line in log if "INFO" not in line and "kernel granted" not in line] == []
        assert not [data async for data in process.stdout]
