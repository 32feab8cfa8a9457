"""A WebRTC transport: ICE-lite, DTLS-SRTP and the RTP session of one of a peer's two connections.

A peer makes it, runs :meth:`WebRtcTransport.run` as a task of its own nursery, and everything of the transport ends
with that task. Datagrams come by direct call from the :class:`~trio_sfu.transport.udp.UdpEndpoint`; the task itself
only sleeps until the next timer.
"""

import logging
import math
import time
import uuid
from collections.abc import Callable
from random import SystemRandom
from typing import Any, Final, Literal

import trio

from trio_sfu.media.errors import MediaError
from trio_sfu.media.ortc import validate_dtls_parameters
from trio_sfu.media.parameters import DtlsFingerprint, DtlsParameters, IceCandidate, IceParameters
from trio_sfu.media.router import Router
from trio_sfu.media.rtp_session import RtpSession
from trio_sfu.media.stats import DtlsState, IceState, TransportTuple
from trio_sfu.protocols.dtls import DtlsSession
from trio_sfu.protocols.ice import IceLite, generate_pwd, generate_ufrag
from trio_sfu.transport.path import MediaSocket, Path
from trio_sfu.transport.refusal import REFUSED, RefusingReceiver
from trio_sfu.transport.sink import SrtpSink
from trio_sfu.transport.srtp import REPLAYED, SrtpReceiver
from trio_sfu.transport.udp import UdpEndpoint
from trio_sfu.wire.demux import is_rtcp

__all__ = ["TransportState", "WebRtcTransport"]

logger = logging.getLogger(__name__)

TransportState = Literal["new", "connecting", "connected", "failed", "closed"]

# DTLS that came before signalling said whose fingerprint to expect; the peer sends again what exceeds this.
_MAX_EARLY_DATAGRAMS: Final = 4
_HOST: Final = 126  # type preference (RFC 8445, section 5.1.2.2)
_TCP_HOST: Final = 90  # a lower one: UDP where it gets through (RFC 6544, section 4.2)
_RANDOM: Final = SystemRandom()  # one for all: it has no state, but 2.5 KB of a generator that it does not use
_PASSIVE: Final = 4 << 13  # direction preference of a host candidate (ibid.), above the other preference


class WebRtcTransport:
    """States: ``new`` → ``connecting`` (ICE has a path) → ``connected`` (fingerprint matched, keys installed) →
    ``closed`` (by either side) or ``failed`` (:attr:`failure` says why, in a sentence).

    It fails where it is not connected ``connect_timeout`` seconds after :meth:`run` began, or where ICE consent is
    not renewed for ``consent_timeout`` seconds (RFC 7675, 30 there). :attr:`on_fault` may be set to be told of bugs
    that its packets hit; without it they are logged and the transport fails.
    """

    def __init__(
        self,
        endpoint: UdpEndpoint,
        router: Router,
        *,
        connect_timeout: float = 30.0,
        consent_timeout: float = 30.0,
    ) -> None:
        # Given
        self._endpoint: Final = endpoint
        self._router: Final = router
        self._connect_timeout: Final = connect_timeout
        self._consent_timeout: Final = consent_timeout
        # Owned
        self.id: Final = str(uuid.uuid4())
        self.state: TransportState = "new"
        self.failure: str | None = None
        self.on_fault: Callable[[Exception], None] | None = None
        self._ice: Final[IceLite[Path]] = IceLite(
            local_ufrag=generate_ufrag(), local_pwd=generate_pwd(), consent_timeout=consent_timeout
        )
        self._dtls: DtlsSession | None = None
        self._paths: set[Path] = set()  # those with a route at the endpoint
        self._ufrags: tuple[str, ...] = ()  # those that are registered there
        self._early: list[bytes] = []
        self._receiver: SrtpReceiver | RefusingReceiver | None = None
        self._srtp: SrtpReceiver | None = None  # the receiver, or the one behind it
        self.sink: SrtpSink | None = None
        self.session: Final = RtpSession(
            clock=trio.current_time,
            wall_clock=time.time,
            on_fault=self.fault,
            on_abuse=self._fail,
            random=_RANDOM,
        )
        self.session.on_refuse = self._refuse
        self._wake = trio.Event()
        # Derived
        self.ice_candidates: Final = _candidates(endpoint)
        self.dtls_parameters: Final = DtlsParameters(
            role="auto",
            fingerprints=tuple(
                DtlsFingerprint(algorithm=algorithm, value=value)
                for algorithm, value in endpoint.dtls.certificate.fingerprints
            ),
        )

    def __repr__(self) -> str:
        return f"<WebRtcTransport {self.id} {self.state}>"

    @property
    def ice_parameters(self) -> IceParameters:
        """The newest credentials, for the client."""
        return IceParameters(username_fragment=self._ice.local_ufrag, password=self._ice.local_pwd, ice_lite=True)

    # -- for statistics ---

    @property
    def ice_state(self) -> IceState:
        """ICE's state, in mediasoup's words; one that is chosen is not told from one that was merely heard of."""
        if self.state in ("closed", "failed"):
            return "closed"
        return "disconnected" if self._ice.state == "lost" else self._ice.state

    @property
    def dtls_state(self) -> DtlsState:
        """The DTLS session's state, ``new`` before :meth:`connect`."""
        return self._dtls.state if self._dtls is not None else "new"

    @property
    def ice_selected_tuple(self) -> TransportTuple | None:
        """Where the transport sends to, and from where; the local address is the one announced."""
        path = self._ice.selected
        if path is None:
            return None
        local = path.socket.announced[0] if path.socket.announced else path.socket.host
        return TransportTuple(
            local_ip=local,
            local_address=local,
            local_port=path.socket.port,
            remote_ip=path.host,
            remote_port=path.port,
            protocol=path.socket.protocol,
        )

    # -- life ---

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until the transport is closed or has failed; then nothing of it is left anywhere.

        It is reachable when ``task_status.started()`` has been called.
        """
        connect_by = trio.current_time() + self._connect_timeout
        self._register(self._ice.local_ufrags)
        self._router.add_session(self.session)
        try:
            task_status.started()
            while self.state not in ("closed", "failed"):
                with trio.move_on_at(self._next_timer(connect_by)):
                    await self._wake.wait()
                self._handle_timers(trio.current_time(), connect_by)
                self._wake = trio.Event()  # after what the timers did, which is no reason to wake up again
        finally:
            self.close()
            self._release()

    def _next_timer(self, connect_by: float) -> float:
        timers = [self._ice.get_timer()]
        if self.state != "connected":
            timers.append(connect_by)
        if self._dtls is not None:
            timers.append(self._dtls.get_timer())
        return min((timer for timer in timers if timer is not None), default=math.inf)

    def _handle_timers(self, now: float, connect_by: float) -> None:
        if self.state in ("closed", "failed"):
            return
        if self.state != "connected" and now >= connect_by:
            self._fail(f"not connected within {self._connect_timeout:g} s")
        elif self._ice.handle_timer(now):
            self._fail(f"the connection was lost: nothing has been heard for {self._consent_timeout:g} s")
        elif self._dtls is not None:
            self._dtls.handle_timer(now)
            self._after_dtls(now)

    def connect(self, dtls_parameters: DtlsParameters) -> None:
        """Take the client's fingerprints and role; the handshake follows by itself.

        We act as the client where the peer is the server, or has no wish, as mediasoup does. Raises
        :class:`MediaError`: ``invalid-dtls-parameters``, ``already-connected``.
        """
        validate_dtls_parameters(dtls_parameters)
        if self._dtls is not None:
            raise MediaError("already-connected", "the transport has been connected before")
        if self.state in ("closed", "failed"):
            raise MediaError("transport-closed", "the transport is closed")
        now = trio.current_time()
        try:
            self._dtls = DtlsSession(
                self._endpoint.dtls,
                role="server" if dtls_parameters.role == "client" else "client",
                remote_fingerprints=[(each.algorithm, each.value) for each in dtls_parameters.fingerprints],
            )
        except ValueError as error:
            raise MediaError("invalid-dtls-parameters", str(error)) from None
        early, self._early = self._early, []
        if self._ice.selected is not None:
            self._dtls.start(now)
        for data in early:
            self._dtls.receive_datagram(data, now)
        self._after_dtls(now)

    def restart_ice(self) -> IceParameters:
        """New ICE credentials for the client, while media goes on as it does (see :meth:`IceLite.restart`).

        DTLS and SRTP know nothing of it. Raises :class:`MediaError`: ``transport-closed``.
        """
        if self.state in ("closed", "failed"):
            raise MediaError("transport-closed", "the transport is closed")
        self._ice.restart(generate_ufrag(), generate_pwd())
        if self._ufrags:
            self._register(self._ice.local_ufrags)
        return self.ice_parameters

    def close(self) -> None:
        """Close, and with it all producers and consumers, at once; :meth:`run` returns soon after."""
        if self.state in ("closed", "failed"):
            return
        self._end("closed")

    def _fail(self, failure: str) -> None:
        if self.state in ("closed", "failed"):
            return
        self.failure = failure
        self._end("failed")

    def _end(self, state: Literal["closed", "failed"]) -> None:
        self.state = state
        self.session.close()
        if self._dtls is not None:
            self._dtls.close()
            self._send_dtls()
        self._release()
        self._wake.set()

    def _register(self, ufrags: tuple[str, ...]) -> None:
        """Be reachable at the endpoint by these username fragments and no others."""
        for ufrag in self._ufrags:
            if ufrag not in ufrags:
                self._endpoint.unregister(ufrag, self)
        for ufrag in ufrags:
            if ufrag not in self._ufrags:
                self._endpoint.register(ufrag, self)
        self._ufrags = ufrags

    def _release(self) -> None:
        for path in self._paths:
            self._endpoint.remove_route(path, self)
        self._paths.clear()
        self._register(())
        self._router.remove_session(self.session)
        self._early.clear()
        self._receiver = self._srtp = None

    def fault(self, error: Exception) -> None:
        """A bug showed in the handling of this transport's packets. Called by the endpoint and the session."""
        if self.state in ("closed", "failed"):
            return
        if self.on_fault is not None:
            self.on_fault(error)
        else:
            logger.error("transport %s failed because of a bug", self.id, exc_info=error)
            self._fail("internal error")

    # -- datagrams, by direct call from the endpoint ---

    def receive_stun(self, data: bytes, path: Path, now: float) -> None:
        """See :class:`trio_sfu.transport.path.DatagramOwner`."""
        if self.state in ("closed", "failed"):
            return
        result = self._ice.receive_stun(data, path, path.host, path.port, now)
        self.session.traffic.control_received += len(data)
        for evicted in result.evicted:
            self._paths.discard(evicted)
            self._endpoint.remove_route(evicted, self)
        if result.retired:
            self._register(self._ice.local_ufrags)
        if self._ice.is_authenticated(path):
            self._paths.add(path)
            # Each time: another transport may have taken over the route by requests with a forged source address.
            self._endpoint.add_route(path, self)
        if result.reply is not None:
            path.socket.send(path, result.reply)
            self.session.traffic.sent += len(result.reply)
        if result.selected_changed:
            selected = self._ice.selected
            assert selected is not None
            if self.sink is not None:
                self.sink.path = selected
            if self.state == "new":
                self.state = "connecting"
                self._wake.set()
            if self._dtls is not None and self._dtls.state == "new":
                self._dtls.start(now)
                self._after_dtls(now)

    def receive_dtls(self, data: bytes, path: Path, now: float) -> None:
        """See :class:`trio_sfu.transport.path.DatagramOwner`."""
        self.session.traffic.control_received += len(data)
        if self._dtls is None:
            if len(self._early) < _MAX_EARLY_DATAGRAMS:
                self._early.append(data)
            return
        self._dtls.receive_datagram(data, now)
        self._after_dtls(now)

    def receive_srtp(self, view: memoryview, pointer: Any, size: int, now: float) -> None:
        """See :class:`trio_sfu.transport.path.DatagramOwner`."""
        receiver = self._receiver
        if receiver is None:
            self._endpoint.counters.early += 1
            return
        if is_rtcp(view[1]):
            datagram = size
            size = receiver.unprotect_rtcp(pointer, size)
            if size > 0:
                self.session.traffic.control_received += datagram
                self.session.receive_rtcp(bytes(view[:size]), now)
                return
        else:
            size = receiver.unprotect(pointer, size)
            if size > 0:
                self.session.receive_rtp(view[:size], now)
                return
        if size == -REFUSED:
            self._endpoint.counters.refused += 1
        elif -size in REPLAYED:
            self._endpoint.counters.replayed += 1
        else:
            self._endpoint.counters.unauthentic += 1

    def _refuse(self, ssrcs: frozenset[int]) -> None:
        """Drop what comes of these streams, see :attr:`RtpSession.on_refuse`."""
        if self._srtp is not None:
            self._receiver = RefusingReceiver(self._srtp, ssrcs) if ssrcs else self._srtp

    def flush(self, now: float) -> None:
        """See :class:`trio_sfu.transport.path.DatagramOwner`."""
        self.session.flush(now)

    def path_closed(self, path: Path, now: float) -> None:
        """See :class:`trio_sfu.transport.path.DatagramOwner`."""
        self._paths.discard(path)
        if self._ice.forget(path):
            assert self._ice.selected is not None
            if self.sink is not None:
                self.sink.path = self._ice.selected
        self._wake.set()  # consent may end earlier without it

    # -- DTLS ---

    def _send_dtls(self) -> None:
        assert self._dtls is not None
        path = self._ice.selected
        for datagram in self._dtls.datagrams_to_send():
            if path is not None:
                path.socket.send(path, datagram)
                self.session.traffic.sent += len(datagram)

    def _after_dtls(self, now: float) -> None:
        """Send what the session has to say, and follow its state."""
        dtls = self._dtls
        assert dtls is not None
        self._send_dtls()
        if dtls.state == "connected":
            if self._receiver is None and self.state not in ("closed", "failed"):
                self._install_keys(dtls, now)
        elif dtls.state == "failed":
            self._fail(dtls.failure or "the DTLS handshake failed")
        elif dtls.state == "closed":
            self.close()
        self._wake.set()

    def _install_keys(self, dtls: DtlsSession, now: float) -> None:
        keys = dtls.srtp_keys
        path = self._ice.selected
        assert keys is not None
        if path is None:
            return
        self._receiver = self._srtp = SrtpReceiver(keys.profile, keys.remote)
        self.sink = SrtpSink(keys, path, self.session.traffic)
        self.state = "connected"
        logger.debug("transport %s is connected to %s port %d", self.id, path.host, path.port)
        self.session.connect(self.sink, now)


def _candidates(endpoint: UdpEndpoint) -> tuple[IceCandidate, ...]:
    """One host candidate for each announced address, the first the most preferred, and TCP's after UDP's."""
    udp = [(each, address) for each in endpoint.sockets for address in each.announced]
    tcp = [(each, address) for each in endpoint.tcp for address in each.announced]
    return (
        *(_candidate(*each, f"udp{index}", _HOST, 65535 - index) for index, each in enumerate(udp)),
        *(_candidate(*each, f"tcp{index}", _TCP_HOST, _PASSIVE + 8191 - index) for index, each in enumerate(tcp)),
    )


def _candidate(
    media_socket: MediaSocket, address: str, foundation: str, type_preference: int, local_preference: int
) -> IceCandidate:
    return IceCandidate(
        foundation=foundation,
        priority=type_preference << 24 | local_preference << 8 | 255,  # RFC 8445, section 5.1.2.1; component 1
        ip=address,
        address=address,
        protocol=media_socket.protocol,
        port=media_socket.port,
        type="host",
        tcp_type="passive" if media_socket.protocol == "tcp" else None,
    )
