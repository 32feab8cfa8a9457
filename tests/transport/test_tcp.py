"""Media by ICE-TCP over real sockets: calls, what is slow or breaks off, and strangers."""

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from aioice import stun

from tests.support.media_core import AUDIO_SSRC, audio, rtp, video
from tests.support.webrtc_peer import loopback
from tests.transport.test_webrtc import Server, connected, handled, texts, until
from tests.transport.test_webrtc import server as udp_server
from trio_sfu.transport.tcp import TcpCounters, TcpLimits, listen_tcp, open_tcp_sockets
from trio_sfu.transport.udp import open_udp_endpoint
from trio_sfu.wire.rtcp import Goodbye, PictureLossIndication
from trio_sfu.wire.rtp import parse_rtp

#: What :func:`server` has as candidates: UDP and TCP on IPv4, unless it is told other hosts.
UDP, TCP = 0, 1


@asynccontextmanager
async def server(*hosts: str, limits: TcpLimits | None = None) -> AsyncIterator[tuple[Server, TcpCounters]]:
    """A server that listens by TCP too; all connections have gone when the block ends."""
    async with udp_server(*hosts) as made:
        listeners = listen_tcp(loopback(*(hosts or ("127.0.0.1",))))
        async with open_tcp_sockets(made.endpoint, listeners, limits) as counters:
            yield made, counters
    assert counters.connections == 0


def accepted(counters: TcpCounters, connections: int) -> Callable[[], bool]:
    return lambda: counters.connections == connections


# -- calls


async def test_candidates() -> None:
    async with server("127.0.0.1", "::1") as (made, _):
        transport = await made.transport()
        found = [(each.ip, each.port, each.protocol, each.tcp_type, each.type) for each in transport.ice_candidates]
        udp, tcp = made.endpoint.sockets, made.endpoint.tcp
        assert found == [
            ("127.0.0.1", udp[0].port, "udp", None, "host"),
            ("::1", udp[1].port, "udp", None, "host"),
            ("127.0.0.1", tcp[0].port, "tcp", "passive", "host"),
            ("::1", tcp[1].port, "tcp", "passive", "host"),
        ]
        priorities = [each.priority for each in transport.ice_candidates]
        assert priorities == sorted(set(priorities), reverse=True)
        # RFC 6544, section 4.2: direction preference 4 in the upper three bits of the local preference.
        assert [priority >> 21 & 7 for priority in priorities[2:]] == [4, 4]
        assert len({each.foundation for each in transport.ice_candidates}) == 4


@pytest.mark.parametrize(("first", "second"), [(TCP, UDP), (UDP, TCP), (TCP, TCP)])
async def test_media_is_forwarded(first: int, second: int) -> None:
    async with (
        server() as (made, counters),
        connected(made, candidate=first) as (sending, sender),
        connected(made, candidate=second) as (receiving, viewer),
    ):
        by_tcp = (first == TCP) + (second == TCP)
        assert counters.connections == counters.accepted == by_tcp
        sound = made.consume(receiving, made.produce(sending, "audio"))
        picture = made.consume(receiving, made.produce(sending, "video"))
        await sender.until(lambda: any(isinstance(item, PictureLossIndication) for item in sender.rtcp))
        await trio.sleep(0.06)
        for number in range(50):
            await sender.send_rtp(video(number, key=number == 0), audio(number))
        await viewer.until(lambda: len(texts(viewer.rtp, picture.ssrc)) == len(texts(viewer.rtp, sound.ssrc)) == 50)
        assert [int(text[2:]) for text in texts(viewer.rtp, picture.ssrc)] == list(range(50))
        for transport, candidate, peer in ((sending, first, sender), (receiving, second, viewer)):
            chosen = transport.ice_selected_tuple
            assert chosen is not None
            assert chosen.protocol == transport.ice_candidates[candidate].protocol
            assert chosen.local_port == transport.ice_candidates[candidate].port
            assert chosen.remote_port == peer.socket.getsockname()[1]
        assert made.endpoint.counters.unauthentic == 0
        assert counters.congested == counters.gone == 0
        assert made.left == (2, 2, 2)


async def test_ipv6() -> None:
    async with server("::1") as (made, _), connected(made, candidate=TCP) as (sending, sender):
        producer = made.produce(sending, "audio")
        await sender.send_rtp(audio(1))
        await until(lambda: producer.streams[0].packets == 1)
        chosen = sending.ice_selected_tuple
        assert chosen is not None
        assert (chosen.protocol, chosen.remote_ip, chosen.local_ip) == ("tcp", "::1", "::1")


async def test_a_burst_of_a_large_keyframe_gets_through() -> None:
    """200 KB at once, more than the kernel's queue takes: all of it arrives, in order."""
    async with (
        server() as (made, counters),
        connected(made, candidate=TCP) as (sending, sender),
        connected(made, candidate=TCP) as (receiving, viewer),
    ):
        picture = made.consume(receiving, made.produce(sending, "video"))
        await trio.sleep(0.06)
        await sender.send_rtp(*[video(n, key=n == 0, payload=large(n, key=n == 0)) for n in range(180)])
        await viewer.until(lambda: len(texts(viewer.rtp, picture.ssrc)) == 180)
        assert [number_in(text) for text in texts(viewer.rtp, picture.ssrc)] == list(range(180))
        assert counters.congested == 0
        assert viewer.client.counters["undecryptable"] == 0


def large(number: int, *, key: bool) -> bytes:
    """A VP8 payload of 1100 bytes."""
    head = b"\x10\x00\x00\x00\x9d\x01\x2a\x00\x05\xd0\x02" if key else b"\x10\x01\x00\x00"
    return head.ljust(16, b"\0") + b"%06d" % number + bytes(1078)


def number_in(text: bytes) -> int:
    return int(text[16:22])


async def test_a_client_that_does_not_read_loses_whole_datagrams_and_nobody_else_any() -> None:
    async with (
        server(limits=TcpLimits(backlog=50_000)) as (made, counters),
        connected(made, candidate=TCP) as (sending, sender),
        connected(made, candidate=TCP) as (receiving, slow),
        connected(made, candidate=UDP) as (other, quick),
    ):
        producer = made.produce(sending, "video")
        picture, control = made.consume(receiving, producer), made.consume(other, producer)
        await trio.sleep(0.06)
        slow.reading = trio.Event()
        number = 0
        while counters.congested < 40:
            burst = range(number, number + 20)
            await sender.send_rtp(*[video(n, key=n == 0, payload=large(n, key=n == 0)) for n in burst])
            number += 20
            await quick.until(lambda: len(texts(quick.rtp, control.ssrc)) == number)  # noqa: B023
            assert number < 20_000
        (connection,) = [route[1] for route in made.endpoint.tcp[0].routes.values() if route[0] is receiving]
        assert len(connection.connection._backlog) <= 50_000  # type: ignore[attr-defined]
        slow.reading.set()
        # What comes then makes sense from the first byte to the last, and the connection is as good as new.
        before = counters.congested
        await slow.until(lambda: len(texts(slow.rtp, picture.ssrc)) >= number - before)
        for n in range(number, number + 5):
            await sender.send_rtp(video(n, payload=large(n, key=False)))
        await slow.until(lambda: number_in(texts(slow.rtp, picture.ssrc)[-1]) == number + 4)
        got = [number_in(text) for text in texts(slow.rtp, picture.ssrc)]
        assert got == sorted(set(got))
        assert len(got) < number
        assert slow.client.counters["undecryptable"] == slow.client.counters["unknown"] == 0
        assert receiving.state == "connected"


# -- the end


async def test_the_connection_ends_with_its_transport() -> None:
    async with server() as (made, counters), connected(made, candidate=TCP) as (transport, peer):
        async with connected(made, candidate=TCP) as (receiving, viewer):
            consumer = made.consume(receiving, made.produce(transport, "audio"))
            transport.close()
            await peer.until(lambda: peer.closed_by_server)
            assert peer.client.dtls.state == "closed"  # that went out before it
            await viewer.until(lambda: any(isinstance(item, Goodbye) for item in viewer.rtcp))
            assert consumer.closed
            await until(accepted(counters, 1))
            assert made.left == (1, 1, 1)
            # By itself, too.
            receiving._ice._consent_timeout = 0.05
            receiving._wake.set()
            await viewer.until(lambda: viewer.closed_by_server)
        await until(accepted(counters, 0))
        assert made.left == (0, 0, 0)


async def test_a_connection_that_breaks_off_leaves_no_route_and_another_takes_over() -> None:
    async with (
        server() as (made, counters),
        connected(made, candidate=TCP) as (sending, sender),
        connected(made, candidate=TCP) as (receiving, viewer),
    ):
        sound = made.consume(receiving, made.produce(sending, "audio"))
        await trio.sleep(0.06)
        viewer.socket.close()
        await until(accepted(counters, 1))
        assert made.left == (1, 2, 2)
        assert receiving.state == "connected"
        await sender.send_rtp(audio(1))
        await until(lambda: counters.gone > 0)
        await viewer.move()
        await until(lambda: made.left == (2, 2, 2))
        await sender.send_rtp(audio(2))
        await viewer.until(lambda: bool(texts(viewer.rtp, sound.ssrc)))
        # The sender's as well, by a reset.
        sender.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sender.socket.close()
        await until(accepted(counters, 1))
        await sender.move()
        await until(lambda: made.left == (2, 2, 2))
        await sender.send_rtp(audio(3))
        await viewer.until(lambda: len(texts(viewer.rtp, sound.ssrc)) == 2)
        assert sending.state == receiving.state == "connected"


async def test_a_connection_that_breaks_off_gives_way_to_another_path() -> None:
    """The client has another connection already: what it gets comes by that, without its asking."""
    async with (
        server() as (made, counters),
        connected(made, candidate=TCP) as (sending, sender),
        connected(made, candidate=UDP) as (receiving, viewer),
    ):
        sound = made.consume(receiving, made.produce(sending, "audio"))
        await trio.sleep(0.06)
        with socket.create_connection(("127.0.0.1", made.endpoint.tcp[0].port)) as sock:
            sock.sendall(framed(check(receiving.ice_parameters.username_fragment, receiving.ice_parameters.password)))
            await until(lambda: made.left == (3, 2, 2))
            receiving._ice._selected = receiving._ice.paths()[-1]
            assert receiving.sink is not None
            receiving.sink.path = receiving._ice.paths()[-1]
            assert receiving.ice_selected_tuple is not None
            assert receiving.ice_selected_tuple.protocol == "tcp"
        await until(accepted(counters, 1))
        assert made.left == (2, 2, 2)
        assert str(receiving.ice_selected_tuple.protocol) == "udp"
        await sender.send_rtp(audio(1))
        await viewer.until(lambda: len(texts(viewer.rtp, sound.ssrc)) == 1)


async def test_paths_are_bounded_and_those_that_go_are_closed() -> None:
    async with server() as (made, counters), connected(made, candidate=TCP) as (transport, _):
        ufrag, pwd = transport.ice_parameters.username_fragment, transport.ice_parameters.password
        async with sockets(made, 12) as clients:
            for client in clients:
                await client.send_all(framed(check(ufrag, pwd)))
                await client.receive_some()
            await until(accepted(counters, 8))
            assert made.left == (8, 1, 1)
            assert transport.state == "connected"


async def test_ice_restarts() -> None:
    async with (
        server() as (made, counters),
        connected(made, candidate=TCP) as (sending, sender),
        connected(made, candidate=TCP) as (receiving, viewer),
    ):
        sound = made.consume(receiving, made.produce(sending, "audio"))
        await trio.sleep(0.06)
        for number, peer in enumerate((sender, viewer)):
            transport = (sending, receiving)[number]
            parameters = transport.restart_ice()
            await peer.restart(parameters)
            await until(lambda: made.endpoint.transport_count == len(made.endpoint._owners))
            await peer.move()  # by the new credentials, from another port
            await sender.send_rtp(audio(number))
            await viewer.until(lambda: len(texts(viewer.rtp, sound.ssrc)) == number + 1)  # noqa: B023
        await until(accepted(counters, 2))


@pytest.mark.parametrize("kind", ["receive_stun", "receive_dtls", "receive_srtp"])
async def test_a_bug_is_told(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with server() as (made, _), connected(made, candidate=TCP) as (transport, peer):
        faults: list[Exception] = []
        transport.on_fault = faults.append
        monkeypatch.setattr(transport, kind, lambda *_: 1 // 0)
        if kind == "receive_stun":
            peer.client._check(trio.current_time())
            await peer.flush()
        elif kind == "receive_dtls":
            await peer.send(b"\x16\xfe\xfd" + bytes(20))
        else:
            await peer.send_rtp(audio(1))
        await until(lambda: bool(faults))
        assert isinstance(faults[0], ZeroDivisionError)
        assert transport.state == "connected"


# -- strangers


def framed(data: bytes) -> bytes:
    return len(data).to_bytes(2) + data


def check(ufrag: str, pwd: str) -> bytes:
    message = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    message.attributes["USERNAME"] = f"{ufrag}:them"
    message.attributes["ICE-CONTROLLING"] = 1
    message.attributes["PRIORITY"] = 1
    message.add_message_integrity(pwd.encode())
    return bytes(message)


@asynccontextmanager
async def sockets(made: Server, count: int = 1) -> AsyncIterator[list[trio.SocketStream]]:
    (tcp_socket,) = made.endpoint.tcp
    streams = [await trio.open_tcp_stream("127.0.0.1", tcp_socket.port) for _ in range(count)]
    try:
        yield streams
    finally:
        for stream in streams:
            await stream.aclose()


async def ended(stream: trio.SocketStream) -> bytes:
    """What the server says until it closes."""
    data = b""
    with trio.fail_after(5):
        while True:
            try:
                more = await stream.receive_some()
            except trio.BrokenResourceError:
                return data
            if not more:
                return data
            data += more


DTLS = b"\x16\xfe\xfd" + bytes(20)
INDICATION = b"\x00\x11" + check("nobody", "x" * 22)[2:]

NOT_WELCOME: list[tuple[str, bytes]] = [
    ("strange", b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n" + bytes(20_000)),
    ("strange", framed(DTLS)),
    ("strange", framed(rtp(1, 1))),
    ("strange", framed(b"\xff")),
    ("strange", framed(b"\0")),
    ("strange", framed(bytes(20))),
    ("strange", framed(INDICATION)),
    ("strange", framed(check("nobody", "x" * 22))),
    ("strange", framed(bytes(stun.Message(stun.Method.BINDING, stun.Class.REQUEST)))),
    ("invalid", b"\x08\x01"),
    ("invalid", b"\xff" * 100),
    ("late", b""),
    ("late", b"\0"),
    ("late", framed(check("nobody", "x" * 22))[:-1]),
    ("late", framed(b"") * 1000),
]


# Transaction ids are random, and tests that run two at a time must be called the same in both processes.
@pytest.mark.parametrize(("reason", "data"), NOT_WELCOME, ids=map(str, range(len(NOT_WELCOME))))
async def test_strangers_are_turned_away(reason: str, data: bytes) -> None:
    async with server(limits=TcpLimits(stranger_seconds=0.1)) as (made, counters):
        transport = await made.transport()
        if data.startswith(b"GET"):
            reason = "invalid"  # 0x4745 bytes are more than a frame may have
        async with sockets(made) as (stream,):
            await stream.send_all(data)
            await ended(stream)
        await until(accepted(counters, 0))
        assert getattr(counters, reason) == 1
        assert counters.late + counters.strange + counters.invalid + counters.refused == 1
        assert transport.state == "new"
        assert made.left == (0, 1, 1)


async def test_a_wrong_password_gains_five_seconds_and_nothing_else() -> None:
    async with server(limits=TcpLimits(stranger_seconds=0.2)) as (made, counters):
        transport = await made.transport()
        request = check(transport.ice_parameters.username_fragment, "not the password, not at all")
        async with sockets(made) as (stream,):
            await stream.send_all(framed(request) + framed(DTLS) + framed(rtp(AUDIO_SSRC, 1)) + framed(request))
            answers = await ended(stream)
        parsed = [stun.parse_message(each) for each in frames_in(answers)]
        assert [each.attributes["ERROR-CODE"][0] for each in parsed] == [401, 401]
        assert counters.late == 1
        assert transport._early == []
        assert transport.state == "new"


def frames_in(data: bytes) -> list[bytes]:
    frames = []
    while data:
        size = int.from_bytes(data[:2])
        frames.append(data[2 : 2 + size])
        data = data[2 + size :]
    return frames


async def test_the_right_password_lets_a_stranger_stay() -> None:
    """In whatever pieces its request comes; after it even a stranger's request is answered."""
    async with server(limits=TcpLimits(stranger_seconds=0.3)) as (made, counters):
        transport = await made.transport()
        request = check(transport.ice_parameters.username_fragment, transport.ice_parameters.password)
        async with sockets(made) as (stream,):
            for byte in framed(request):
                await stream.send_all(bytes([byte]))
                if byte == 0x21:
                    await handled()
            data = await stream.receive_some()
            assert stun.parse_message(frames_in(data)[0]).message_class == stun.Class.RESPONSE
            await trio.sleep(0.4)
            await stream.send_all(framed(check("nobody", "x" * 22)))
            data = await stream.receive_some()
            assert stun.parse_message(frames_in(data)[0]).attributes["ERROR-CODE"][0] == 401
            assert counters.connections == 1
            assert transport.state == "connecting"


async def test_strangers_are_few_and_the_oldest_goes() -> None:
    limits = TcpLimits(strangers=5, strangers_per_host=3)
    async with server(limits=limits) as (made, counters), connected(made, candidate=TCP) as (transport, _):
        async with sockets(made, 3) as first:
            await until(accepted(counters, 4))
            async with sockets(made, 2):
                for stream in first[:2]:
                    assert await ended(stream) == b""
                await until(accepted(counters, 4))
                assert counters.refused == 2
                # Those who are known do not count.
                await first[2].send_all(framed(check(*credentials(transport))))
                await first[2].receive_some()
                async with sockets(made):
                    await until(accepted(counters, 5))
                    assert counters.refused == 2
        await until(accepted(counters, 1))


def credentials(transport: Any) -> tuple[str, str]:
    return transport.ice_parameters.username_fragment, transport.ice_parameters.password


async def test_a_flood_of_connections_keeps_nobody_out() -> None:
    async with server(limits=TcpLimits(strangers=10, strangers_per_host=10)) as (made, counters):
        async with sockets(made, 60):
            await until(lambda: counters.refused == 50)
            await until(accepted(counters, 10))
            async with connected(made, candidate=TCP) as (transport, peer):
                producer = made.produce(transport, "audio")
                await peer.send_rtp(audio(1))
                await until(lambda: producer.streams[0].packets == 1)
        await until(accepted(counters, 0))


async def test_garbage_within_a_call_is_counted() -> None:
    async with server() as (made, counters), connected(made, candidate=TCP) as (transport, peer):
        producer = made.produce(transport, "audio")
        before = made.endpoint.counters.invalid
        for data in (b"\xff" * 30, b"\0" * 30, b"\x80", b"\x50abc"):
            await peer.send(data)
        protected = peer.client.protect_rtp(audio(1))
        await peer.send(protected)
        await peer.send(protected)
        await peer.send(protected[:-1] + bytes([protected[-1] ^ 1]))
        await until(lambda: made.endpoint.counters.replayed == 2)
        assert made.endpoint.counters.invalid == before + 4
        assert producer.streams[0].packets == 1
        # A frame that is too long is the end of the stream, not of the transport.
        await peer.socket.send(b"\xff\xff" + bytes(10))
        await until(accepted(counters, 0))
        assert counters.invalid == 1
        assert transport.state == "connected"


async def test_an_address_that_is_taken() -> None:
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint:
        (listener,) = listen_tcp(loopback("127.0.0.1"))
        async with open_tcp_sockets(endpoint, [listener]):
            taken = loopback("127.0.0.1")[0].__class__("127.0.0.1", ("127.0.0.1",), endpoint.tcp[0].port)
            with pytest.raises(OSError, match=r"TCP 127.0.0.1 port \d+ is in use"):
                listen_tcp([*loopback("127.0.0.1"), taken])
        assert endpoint.tcp == []
    assert listener.sock.fileno() == -1


def test_every_frame_of_rtp_parses() -> None:
    """The tests' own large packets are RTP that the server takes."""
    assert parse_rtp(video(1, payload=large(1, key=False))).payload_end > 1000
