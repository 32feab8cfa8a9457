"""How plain transports are connected and end; nothing of them is left open."""

import os
import socket
from typing import Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.support.media_core import FakeSession, audio, rtp
from tests.support.plain_remote import AUDIO, LiveCall, remote, running, state
from tests.support.until import until
from trio_sfu.media.errors import MediaError
from trio_sfu.transport import plain
from trio_sfu.transport.plain import PlainTransport
from trio_sfu.wire.rtcp import ReceiverReport

muxed_or_not = pytest.mark.parametrize("mux", [False, True], ids=["separate", "muxed"])


@pytest.fixture
async def call() -> LiveCall:
    return LiveCall()


@pytest.fixture
async def sender(call: LiveCall) -> FakeSession:
    return call.session()


def open_fds() -> int:
    return len(os.listdir("/proc/self/fd"))


async def test_nothing_is_left_open(call: LiveCall, sender: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    before = open_fds()
    for mux in (False, True):
        transport = PlainTransport(call.router, rtcp_mux=mux)
        assert open_fds() == before + (1 if mux else 2)
        transport.close()
        transport.close()
        assert open_fds() == before
        await transport.run()
        transport = PlainTransport(call.router, rtcp_mux=mux)
        async with running(transport):
            consumer = call.watch(transport, call.produce_video(sender, encodings=[{"ssrc": 50 + mux}], mid=f"m{mux}"))
        assert consumer.closed
        assert open_fds() == before
    with pytest.raises(OSError, match="assign requested address"):
        PlainTransport(call.router, host="192.0.2.1")
    bind = plain._bind
    made: list[socket.socket] = []

    def bind_once(host: str) -> socket.socket:
        if made:
            raise OSError("no more")
        made.append(bind(host))
        return made[0]

    monkeypatch.setattr(plain, "_bind", bind_once)
    with pytest.raises(OSError, match="no more"):
        PlainTransport(call.router)
    assert open_fds() == before


async def test_closing_while_it_waits(call: LiveCall) -> None:
    transport = PlainTransport(call.router)
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(transport.run)
            await wait_all_tasks_blocked()
            transport.close()
    with pytest.raises(MediaError, match="the transport is closed") as caught:
        transport.connect("127.0.0.1", 9)
    assert caught.value.code == "transport-closed"
    with pytest.raises(MediaError, match="the transport is closed"):
        call.router.produce(transport, "audio", AUDIO)


@muxed_or_not
async def test_closing_amid_a_batch(call: LiveCall, monkeypatch: pytest.MonkeyPatch, mux: bool) -> None:
    with remote(mux=mux) as there:
        transport = PlainTransport(call.router, rtcp_mux=mux)
        monkeypatch.setattr(transport.session, "receive_rtp", lambda *_: transport.close())
        transport.connect(*there.address)
        there.send_rtp(transport, *[audio(number) for number in range(20)])
        with trio.fail_after(5):
            await transport.run()
        assert transport.counters.received == 1
        assert transport._rtp.fileno() == transport._rtcp.fileno() == -1


async def test_a_bug_in_closing_leaves_no_socket(call: LiveCall, monkeypatch: pytest.MonkeyPatch) -> None:
    transport = PlainTransport(call.router)
    monkeypatch.setattr(transport.session, "close", lambda: 1 // 0)
    with pytest.raises(ZeroDivisionError):
        transport.close()
    assert transport._rtp.fileno() == transport._rtcp.fileno() == -1


async def test_sending_after_the_end_does_nothing(call: LiveCall) -> None:
    """Whoever wraps the sink may have a timer that is late."""
    transport = PlainTransport(call.router)
    transport.connect("127.0.0.1", 9)
    transport.close()
    transport.sink.send_rtcp(ReceiverReport(1).to_bytes())
    assert transport.sink.counters.failed == 1


async def test_streams_without_end_end_the_transport(call: LiveCall) -> None:
    with remote() as there:
        transport = PlainTransport(call.router)
        async with running(transport):
            transport.connect(*there.address)
            there.send_rtp(transport, *[rtp(ssrc, 1) for ssrc in range(1, 100)])
            await until(lambda: transport.state == "closed")
            assert transport.failure == "too many RTP streams that were not announced"


@pytest.mark.parametrize("where", ["receive_rtp", "flush"])
@pytest.mark.parametrize("observed", [True, False])
async def test_a_bug_is_told(
    call: LiveCall, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, *, observed: bool, where: str
) -> None:
    with remote() as there:
        transport = PlainTransport(call.router)
        faults: list[Exception] = []
        if observed:
            transport.on_fault = faults.append
        monkeypatch.setattr(transport.session, where, lambda *_: 1 // 0)
        async with running(transport):
            transport.connect(*there.address)
            there.send_rtp(transport, audio(1))
            if observed:
                await until(lambda: faults)
                assert isinstance(faults[0], ZeroDivisionError)
                assert state(transport) == "connected"
                assert not caplog.records
            else:
                await until(lambda: transport.state == "closed")
                assert transport.failure == "internal error"
                assert "because of a bug" in caplog.text
        told = len(faults)
        transport.fault(ValueError("too late"))
        assert len(faults) == told
        assert bool(told) == observed


@pytest.mark.parametrize(
    ("mux", "address"),
    [
        (False, ("127.0.0.1", 0)),
        (False, ("127.0.0.1", 65536, 5)),
        (False, ("127.0.0.1", 65535)),
        (False, ("127.0.0.1", 5, 0)),
        (False, ("::1", 5)),
        (False, ("localhost", 5)),
        (False, ("127.0.0.1\0", 5)),
        (False, ("", 5)),
        (True, ("127.0.0.1", 5, 6)),
    ],
)
async def test_addresses_that_are_none(call: LiveCall, mux: bool, address: tuple[Any, ...]) -> None:
    transport = PlainTransport(call.router, rtcp_mux=mux)
    with pytest.raises(MediaError) as caught:
        transport.connect(*address)
    assert caught.value.code == "invalid-address"
    assert transport.state == "new"
    assert transport.tuple.remote_ip is None
    transport.close()


async def test_ports_that_are_not_given(call: LiveCall) -> None:
    for mux, port in ((False, 41), (True, 40)):
        transport = PlainTransport(call.router, rtcp_mux=mux)
        transport.connect("127.0.0.1", 40)
        assert transport.rtcp_tuple.remote_port == port
        with pytest.raises(MediaError) as caught:
            transport.connect("127.0.0.1", 40)
        assert caught.value.code == "already-connected"
        transport.close()
    transport = PlainTransport(call.router, host="::1")
    transport.connect("0:0:0:0:0:0:0:1", 40)
    assert transport.tuple.remote_ip == "::1"  # as the kernel writes the source of a datagram
    transport.close()
