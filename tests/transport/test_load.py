"""Overload over real sockets, on a lateness and a clock of the test's own: video goes, sound stays; turns end."""

import logging
import socket
from contextlib import AsyncExitStack
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from tests.support.media_core import AUDIO_SSRC, VIDEO_SSRC, audio, rtp, video
from tests.support.webrtc_peer import loopback
from tests.transport.test_udp import SRTP, Owner, answer, binding_request, client
from tests.transport.test_webrtc import Server, connected, handled, texts
from trio_sfu.media.router import Router
from trio_sfu.rooms.ticker import TICK_SECONDS, Ticker
from trio_sfu.transport.backlog import Backlog
from trio_sfu.transport.load import LoadWatch
from trio_sfu.transport.refusal import REFUSED, RefusingReceiver
from trio_sfu.transport.srtp import SrtpReceiver, SrtpSender, pointer_to
from trio_sfu.transport.udp import UdpEndpoint, open_udp_endpoint


class Clock:
    """What the load's watch is told, tick by tick."""

    def __init__(self, load: LoadWatch) -> None:
        self.load = load
        self.now = 1000.0

    def late(self, seconds: float, *, growing: float) -> None:
        """Behind for so long, by ``growing`` seconds a second."""
        for tick in range(round(seconds / TICK_SECONDS)):
            self.now += TICK_SECONDS
            self.load.tick(0.06 + growing * tick * TICK_SECONDS, self.now)

    def in_time(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK_SECONDS)):
            self.now += TICK_SECONDS
            self.load.tick(0.0, self.now)


async def test_video_goes_and_sound_stays(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "trio_sfu.transport.load")
    async with AsyncExitStack() as stack:
        endpoint = await stack.enter_async_context(open_udp_endpoint(loopback("127.0.0.1")))
        nursery = await stack.enter_async_context(trio.open_nursery())
        made = Server(endpoint, nursery)
        made.router = Router(overload=endpoint.load.overload)
        clock = Clock(endpoint.load)
        clock.in_time(0.1)
        sending, sender = await stack.enter_async_context(connected(made))
        receiving, viewer = await stack.enter_async_context(connected(made))
        seen = made.consume(receiving, made.produce(sending, "video"))
        heard = made.consume(receiving, made.produce(sending, "audio"))
        number = 0

        async def send(*, key: bool = False) -> tuple[int, int]:
            """A frame and a packet of sound each; how many of both have come."""
            nonlocal number
            before = [len(texts(viewer.rtp, consumer.ssrc)) for consumer in (seen, heard)]
            for _ in range(5):
                number += 1
                await sender.send_rtp(video(number, key=key, marker=True), audio(number))
                await handled()
                key = False
            after = [len(texts(viewer.rtp, consumer.ssrc)) for consumer in (seen, heard)]
            return after[0] - before[0], after[1] - before[1]

        await trio.sleep(0.06)  # the answer to `consume` has a start
        assert await send(key=True) == (5, 5)
        made.router.tick(trio.current_time() + 1)
        clock.late(3.0, growing=0.9)  # by far too much: nothing of the video is left
        assert endpoint.load.overload.keep == 0.0
        made.router.tick(trio.current_time() + 1)
        assert await send() == (0, 5)
        made.router.tick(trio.current_time() + 2)  # nobody has it, so from now on it is not even decrypted
        assert await send() == (0, 5)
        assert endpoint.counters.refused == 5
        clock.in_time(15.0)
        assert not endpoint.load.overload.overloaded
        made.router.tick(trio.current_time() + 3)
        assert await send(key=True) == (5, 5)
        numbers = [int.from_bytes(data[2:4]) for data in viewer.rtp if int.from_bytes(data[8:12]) == seen.ssrc]
        assert [each - numbers[0] & 0xFFFF for each in numbers] == list(range(10))
        nursery.cancel_scope.cancel()
    assert [record.message.split(":")[0] for record in caplog.records] == [
        "overloaded",
        "no longer overloaded",
    ]


async def test_what_waits_tells_how_long() -> None:
    here, there = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
    with here as sock, there as far:
        sock.bind(("127.0.0.1", 0))
        far.connect(sock.getsockname())
        backlog = Backlog(sock, 64)
        assert backlog.take() == 0.0
        backlog.stand(0.001)  # before anything has come; the kernel stamps from now on
        assert backlog.take() < 1.0
        waited = 0.0
        with trio.fail_after(10):
            while waited < 0.02:  # the kernel takes its time to begin
                far.send(b"1")
                await trio.sleep(0.02)
                sock.recv(10)
                backlog.stand(0.001)
                waited = backlog.take()
        assert backlog.standing
        assert waited < 5.0
        assert backlog.take() == 0.0
        backlog.stand(0.001)
        backlog.end()
        assert not backlog.standing
        assert backlog.take() == 0.0


class Slow(Owner):
    """Each packet takes as long to forward as it does to 500 consumers."""

    def __init__(self, endpoint: UdpEndpoint, clock: MockClock) -> None:
        super().__init__(endpoint)
        self.clock = clock
        self.turns: list[int] = []
        self.passes = 0
        self._passes_at_last = -1

    def receive_srtp(self, view: memoryview, pointer: Any, size: int, now: float) -> None:
        self.clock.jump(0.0017)
        if self.passes != self._passes_at_last:
            self._passes_at_last = self.passes
            self.turns.append(0)
        self.turns[-1] += 1


async def test_a_turn_ends_with_a_queue_that_is_not_empty(mock_clock: MockClock) -> None:
    """Others run between two batches, which are short once it is known how long they take."""
    async with open_udp_endpoint(loopback("127.0.0.1")) as endpoint, trio.open_nursery() as nursery:
        owner = Slow(endpoint, mock_clock)
        endpoint.register("ufrag", owner)

        async def pass_by() -> None:
            while True:
                await trio.lowlevel.checkpoint()
                owner.passes += 1

        with client(endpoint.sockets[0]) as sock:
            sock.send(binding_request("ufrag"))
            await answer(sock)
            for _ in range(400):
                sock.send(SRTP)
            nursery.start_soon(pass_by)
            while sum(owner.turns) < 400:
                await trio.lowlevel.checkpoint()
            # Two turns may lie between two of the others', since those of one pass run in any order.
            assert 64 <= owner.turns[0] <= 72
            assert max(owner.turns[1:]) <= 16
            nursery.cancel_scope.cancel()


async def test_ticks_go_on_until_all_is_well() -> None:
    """Though the last room is gone."""
    called: list[float] = []
    done = trio.Event()

    def watch(late: float, now: float) -> bool:
        called.append(late)
        if len(called) == 3:
            done.set()
        return len(called) < 3

    ticker = Ticker(watch)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ticker.run)
        await ticker.drive(lambda _: False)
        with trio.fail_after(5):
            await done.wait()
        await wait_all_tasks_blocked(0.05)
        assert len(called) == 3
        assert all(late >= 0.0 for late in called)
        nursery.cancel_scope.cancel()


def test_the_rollover_counter_is_followed_while_a_stream_is_refused() -> None:
    """100,000 packets go by, more than one cycle of sequence numbers."""
    key = bytes(range(28))
    sender = SrtpSender("AEAD_AES_128_GCM", key)
    receiver = SrtpReceiver("AEAD_AES_128_GCM", key)
    refusing = RefusingReceiver(receiver, frozenset({VIDEO_SSRC}))
    buffer = bytearray(200)
    pointer = pointer_to(buffer)

    def protected(number: int, ssrc: int) -> int:
        packet = rtp(ssrc, number)
        buffer[: len(packet)] = packet
        sender.protect_run(pointer, 0, [len(packet)])
        return len(packet) + sender.overhead

    assert receiver.unprotect(pointer, protected(0, VIDEO_SSRC)) > 0
    for number in range(1, 100_001):
        assert refusing.unprotect(pointer, protected(number, VIDEO_SSRC)) == -REFUSED
    assert refusing.unprotect(pointer, protected(1, AUDIO_SSRC)) > 0
    assert receiver.unprotect(pointer, protected(100_001, VIDEO_SSRC)) > 0
