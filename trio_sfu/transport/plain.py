"""A plain transport: RTP over UDP sockets of its own, without ICE and DTLS, as mediasoup's PlainTransport.

For receivers and senders that signalling has told of each other: FFmpeg, GStreamer, another server. Whoever makes one
runs :meth:`PlainTransport.run` as a task and calls :meth:`PlainTransport.close`, which closes all that it has opened;
the end of the task does so too.
"""

import logging
import socket
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from random import SystemRandom
from typing import Any, Final, Literal

import msgspec
import trio

from trio_sfu.media.codec_matching import is_rtx
from trio_sfu.media.errors import MediaError
from trio_sfu.media.parameters import RtcpFeedback, RtpCapabilities
from trio_sfu.media.router import Router
from trio_sfu.media.rtp_session import RtpSession
from trio_sfu.media.sink import Sink
from trio_sfu.protocols.dtls import SrtpKeys
from trio_sfu.transport.mmsg import SLOT
from trio_sfu.transport.plain_sink import Address, PlainSink
from trio_sfu.transport.srtp import REPLAYED, SrtpReceiver, pointer_to
from trio_sfu.transport.udp import EndpointCounters
from trio_sfu.wire.demux import KIND_OF_FIRST_BYTE, RTP_OR_RTCP, is_rtcp
from trio_sfu.wire.errors import BadPacket
from trio_sfu.wire.rtcp import parse_compound
from trio_sfu.wire.rtp import parse_rtp

__all__ = ["PlainTransport", "PlainTransportState", "TransportTuple", "plain_rtp_capabilities"]

logger = logging.getLogger(__name__)

PlainTransportState = Literal["new", "connected", "closed"]

_BATCH: Final = 64  # datagrams handled before trio runs other tasks
_PLAIN_FEEDBACK: Final = (RtcpFeedback("nack", "pli"), RtcpFeedback("ccm", "fir"))


@dataclass(frozen=True, slots=True)
class TransportTuple:
    """A local and a remote address, as mediasoup's; the remote one is None until it is known."""

    local_ip: str
    local_port: int
    remote_ip: str | None
    remote_port: int | None


def plain_rtp_capabilities(capabilities: RtpCapabilities) -> RtpCapabilities:
    """What a receiver on a plain transport is taken to support, of a router's ``capabilities``.

    All its codecs; no retransmission, no header extensions, and of RTCP feedback the requests for keyframes only.
    Consumers on a plain transport are to be made with these: it sends nothing else.
    """
    return RtpCapabilities(
        codecs=tuple(
            msgspec.structs.replace(
                codec, rtcp_feedback=tuple(each for each in codec.rtcp_feedback if each in _PLAIN_FEEDBACK)
            )
            for codec in capabilities.codecs
            if not is_rtx(codec)
        )
    )


class PlainTransport:
    """States: ``new`` → ``connected`` (where to send RTP to is known) → ``closed``; :attr:`failure` says why, in a
    sentence, where that was the transport's own doing.

    The remote addresses come by :meth:`connect`, or with ``comedia`` from the source of the first valid RTP and the
    first valid RTCP packet; datagrams from elsewhere are counted and dropped from then on. Without ``srtp`` anybody
    who can reach the port can be the first, and can forge a source later on: that is for networks of one's own.

    The session sends through ``wrap(sink)`` where ``wrap`` is given. :attr:`on_fault` may be set to be told of bugs
    that its packets hit; without it they are logged and the transport closes.
    """

    def __init__(
        self,
        router: Router,
        *,
        host: str = "127.0.0.1",
        rtcp_mux: bool = False,
        comedia: bool = False,
        srtp: SrtpKeys | None = None,
        wrap: Callable[[Sink], Sink] | None = None,
    ) -> None:
        """Bind free ports of ``host``, an IP address: one, or without ``rtcp_mux`` two. Raises :class:`OSError`."""
        # Given
        self._router: Final = router
        self._comedia: Final = comedia
        self._wrap: Final = wrap
        # Owned
        self.id: Final = str(uuid.uuid4())
        self.state: PlainTransportState = "new"
        self.failure: str | None = None
        self.on_fault: Callable[[Exception], None] | None = None
        self.counters: Final = EndpointCounters()
        self._receiver: Final = SrtpReceiver(srtp.profile, srtp.remote) if srtp is not None else None
        self._buffer: Final = bytearray(SLOT + 1)  # what fills it was longer than a slot
        self._view: Final = memoryview(self._buffer)
        self._pointer: Final[Any] = pointer_to(self._buffer)
        self.session: Final = RtpSession(
            clock=trio.current_time,
            wall_clock=time.time,
            on_fault=self.fault,
            on_abuse=self._fail,
            random=SystemRandom(),
        )
        self._rtp: Final = _bind(host)
        try:
            self._rtcp: Final = self._rtp if rtcp_mux else _bind(host)
        except OSError:
            self._rtp.close()
            raise
        self.sink: Final = PlainSink(self._rtp, self._rtcp, srtp)
        # Derived
        self.rtcp_mux: Final = rtcp_mux
        self._local: Final = _name(self._rtp.getsockname())
        self._rtcp_local: Final = _name(self._rtcp.getsockname())

    def __repr__(self) -> str:
        return f"<PlainTransport {self.id} {self.state}>"

    @property
    def tuple(self) -> TransportTuple:
        """Where RTP comes and goes, and RTCP too where they share a port."""
        return TransportTuple(*self._local, *(self.sink.remote or (None, None)))

    @property
    def rtcp_tuple(self) -> TransportTuple:
        """Where RTCP comes and goes."""
        return TransportTuple(*self._rtcp_local, *(self.sink.rtcp_remote or (None, None)))

    # -- life ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Receive until the transport is closed; then nothing of it is left anywhere."""
        try:
            if self.state != "closed":
                self._router.add_session(self.session)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._receive, self._rtp)
                if not self.rtcp_mux:
                    nursery.start_soon(self._receive, self._rtcp)
                task_status.started()
        finally:
            self.close()

    def connect(self, ip: str, port: int, rtcp_port: int | None = None) -> None:
        """Send to ``ip`` from now on, and take what comes from there.

        RTCP goes to ``rtcp_port``, by default the port after ``port`` (RFC 3550, section 11), or to ``port`` itself
        where they share one. Sender reports go out with the next tick, and then once a second. Nothing need listen
        there. Raises :class:`MediaError`: ``invalid-address``, ``already-connected``, ``transport-closed``, and
        ``comedia`` where the remote address is to be learnt.
        """
        if self.state == "closed":
            raise MediaError("transport-closed", "the transport is closed")
        if self._comedia:
            raise MediaError("comedia", "the transport takes its remote address from the packets that come")
        if self.state == "connected":
            raise MediaError("already-connected", "the transport has been connected before")
        if rtcp_port is None:
            rtcp_port = port if self.rtcp_mux else port + 1
        elif self.rtcp_mux and rtcp_port != port:
            raise MediaError("invalid-address", "RTCP has no port of its own on this transport")
        family = self._rtp.family
        try:
            ip = socket.inet_ntop(family, socket.inet_pton(family, ip))
        except (OSError, ValueError):
            raise MediaError("invalid-address", "that is no IP address of the transport's family") from None
        if not (0 < port < 65536 and 0 < rtcp_port < 65536):
            raise MediaError("invalid-address", "ports are from 1 to 65535")
        self.sink.remote = (ip, port)
        self.sink.rtcp_remote = (ip, rtcp_port)
        self._connected(trio.current_time())

    def _connected(self, now: float) -> None:
        self.state = "connected"
        assert self.sink.remote is not None
        logger.debug("transport %s is connected to %s port %d", self.id, *self.sink.remote)
        self.session.connect(self._wrap(self.sink) if self._wrap is not None else self.sink, now)

    def close(self) -> None:
        """Close, and with it all producers, consumers and sockets, at once; :meth:`run` returns soon after."""
        if self.state == "closed":
            return
        self.state = "closed"
        try:
            self.session.close()
        finally:
            self._router.remove_session(self.session)
            for sock in (self._rtp,) if self.rtcp_mux else (self._rtp, self._rtcp):
                trio.lowlevel.notify_closing(sock)
                sock.close()

    def _fail(self, failure: str) -> None:
        if self.state != "closed":
            self.failure = failure
            self.close()

    def fault(self, error: Exception) -> None:
        """A bug showed in the handling of this transport's packets. Called by the session too."""
        if self.state == "closed":
            return
        if self.on_fault is not None:
            self.on_fault(error)
        else:
            logger.error("transport %s closed because of a bug", self.id, exc_info=error)
            self._fail("internal error")

    # -- datagrams ---

    async def _receive(self, sock: socket.socket) -> None:
        while self.state != "closed":
            try:
                await trio.lowlevel.wait_readable(sock)
            except trio.ClosedResourceError:
                return
            self._receive_batch(sock, trio.current_time())

    def _receive_batch(self, sock: socket.socket, now: float) -> None:
        """Handle what has come, up to a bound, then forward it."""
        for _ in range(_BATCH):
            try:
                size, source = sock.recvfrom_into(self._buffer)
            except BlockingIOError:
                break
            except OSError:
                continue  # word of an earlier datagram's fate
            try:
                self._handle(sock, size, _name(source), now)
            except Exception as error:
                self.fault(error)
            if self.state == "closed":
                return
        try:
            self.session.flush(now)
        except Exception as error:
            self.fault(error)

    def _handle(self, sock: socket.socket, size: int, source: Address, now: float) -> None:
        counters = self.counters
        counters.received += 1
        counters.octets += size
        view = self._view
        if not 8 <= size <= SLOT or KIND_OF_FIRST_BYTE[view[0]] != RTP_OR_RTCP:
            counters.invalid += 1
            return
        rtcp = is_rtcp(view[1])
        if not self.rtcp_mux and rtcp != (sock is self._rtcp):
            counters.invalid += 1
            return
        remote = self.sink.rtcp_remote if rtcp else self.sink.remote
        if remote is None and not self._comedia:
            counters.early += 1
            return
        if remote is not None and source != remote:
            counters.unknown += 1
            return
        if self._receiver is not None:
            unprotect = self._receiver.unprotect_rtcp if rtcp else self._receiver.unprotect
            size = unprotect(self._pointer, size)
            if size < 0:
                if -size in REPLAYED:
                    counters.replayed += 1
                else:
                    counters.unauthentic += 1
                return
        if remote is None and not self._learn(source, view[:size], now, rtcp=rtcp):
            counters.invalid += 1
            return
        if rtcp:
            self.session.receive_rtcp(bytes(view[:size]), now)
        else:
            self.session.receive_rtp(view[:size], now)

    def _learn(self, source: Address, data: memoryview, now: float, *, rtcp: bool) -> bool:
        """Take the source of a valid packet for the remote address; false where it is not valid."""
        try:
            if rtcp:
                parse_compound(bytes(data))
            else:
                parse_rtp(data)
        except BadPacket:
            return False
        if rtcp or self.rtcp_mux:
            self.sink.rtcp_remote = source
        if not rtcp or self.rtcp_mux:
            self.sink.remote = source
            self._connected(now)
        return True


def _bind(host: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        # A keyframe comes as one burst; the kernel grants what its limit allows.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        sock.bind((host, 0))
    except OSError:
        sock.close()
        raise
    return sock


def _name(address: Any) -> Address:
    """A socket address without IPv6's flow and scope."""
    return address[0], address[1]
