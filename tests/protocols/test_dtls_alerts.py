"""What a session hears and says when it has let go of OpenSSL, against a peer that has not."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from tests.protocols.test_dtls import LEFT, RIGHT, Net, Patient, assert_connected, state_of
from trio_sfu.protocols.dtls import DtlsContext, DtlsRole, DtlsSession
from trio_sfu.protocols.dtls_alerts import AlertReader

SUITES = [
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
]
CBC = "ECDHE-ECDSA-AES128-SHA"


def connected(role: DtlsRole, suite: str = SUITES[0], *, drop: Callable[[bytes], bool] | None = None) -> Net:
    """A session in ``role`` that lets go, and a peer that does not; they have ``suite`` in common."""
    peer_context = DtlsContext(LEFT.certificate)
    peer_context._context.set_cipher_list(suite.encode())
    peer_role: DtlsRole = "server" if role == "client" else "client"
    session = DtlsSession(RIGHT, role=role, remote_fingerprints=LEFT.certificate.fingerprints)
    peer = Patient(peer_context, role=peer_role, remote_fingerprints=RIGHT.certificate.fingerprints)
    net = Net(client=peer, server=session) if role == "server" else Net(client=session, server=peer)
    if drop is not None:
        net.drop = lambda _, datagram: drop(datagram)
    net.connect()
    assert_connected(net)
    assert peer.connection_of_openssl.get_cipher_name() == suite
    return net


def both(net: Net, role: DtlsRole) -> tuple[DtlsSession, Patient]:
    """The session and its peer."""
    session, peer = (net.client, net.server) if role == "client" else (net.server, net.client)
    assert isinstance(peer, Patient)
    return session, peer


def said(peer: Patient, say: Callable[[SSL.Connection], object]) -> bytes:
    """What OpenSSL makes of it."""
    say(peer.connection_of_openssl)
    return peer.connection_of_openssl.bio_read(2000)


@pytest.mark.parametrize("suite", [*SUITES, CBC])
@pytest.mark.parametrize("role", ["client", "server"])
def test_a_close_notify_of_openssl_is_understood_and_answered(role: DtlsRole, suite: str) -> None:
    net = connected(role, suite)
    session, peer = both(net, role)
    assert (session._connection is None) == (suite != CBC)  # where only OpenSSL can read, it stays
    peer.close()
    net.run()
    assert (state_of(session), session.failure) == ("closed", None)
    answers = [datagram for sender, datagram in net.sent if sender is session]
    assert answers[-1][0] == 21


@pytest.mark.parametrize("suite", [*SUITES, CBC])
@pytest.mark.parametrize("role", ["client", "server"])
def test_openssl_understands_a_close_notify_that_was_made_in_advance(role: DtlsRole, suite: str) -> None:
    net = connected(role, suite)
    session, peer = both(net, role)
    session.close()
    net.run()
    assert (state_of(peer), peer.failure) == ("closed", None)
    session.close()
    assert session.datagrams_to_send() == []


@pytest.mark.parametrize("role", ["client", "server"])
def test_only_the_peers_own_alert_closes(role: DtlsRole) -> None:
    """Not one bit of it may be another; nor does what we have said ourselves close us."""
    net = connected(role)
    session, peer = both(net, role)
    alert = said(peer, SSL.Connection.shutdown)
    for position in range(len(alert)):
        forged = bytearray(alert)
        forged[position] ^= 1
        session.receive_datagram(bytes(forged), net.now)
        session.receive_datagram(alert[:position], net.now)
    session.receive_datagram(session._farewell[0], net.now)
    assert_connected(net)
    session.receive_datagram(alert, net.now)
    assert state_of(session) == "closed"


def test_an_alert_is_found_behind_other_records() -> None:
    net = connected("server")
    session, peer = both(net, "server")
    data = said(peer, lambda connection: connection.send(b"an SCTP packet, perhaps"))
    session.receive_datagram(data, net.now)
    assert_connected(net)
    session.receive_datagram(data + said(peer, SSL.Connection.shutdown), net.now)
    assert state_of(session) == "closed"


@pytest.mark.parametrize("alert", [(1, 90), (1, 100), (2, 20), (2, 80)])
def test_a_fatal_alert_fails_the_session_and_a_warning_does_not(
    monkeypatch: pytest.MonkeyPatch, alert: tuple[int, int]
) -> None:
    net = connected("server")
    session, peer = both(net, "server")
    monkeypatch.setattr(AlertReader, "_decrypt", lambda *_: bytes(alert))
    session.receive_datagram(said(peer, SSL.Connection.shutdown), net.now)
    if alert[0] == 1:
        assert_connected(net)
        return
    assert state_of(session) == "failed"
    assert session.failure == f"the DTLS association ended: the peer sent alert {alert[1]}"
    assert session.srtp_keys is None


def test_a_peer_that_lost_the_last_flight_gets_it_again() -> None:
    """It makes new records of its own, by OpenSSL's timer too; the same bytes in answer will do."""
    lost: list[bytes] = []

    def drop(datagram: bytes) -> bool:
        # The server's last flight begins with ChangeCipherSpec; it is lost three times.
        if datagram[0] == 20 and len(lost) < 3:
            lost.append(datagram)
            return True
        return False

    net = connected("server", drop=drop)
    assert len(lost) == 3
    assert len(set(lost)) == 1
    assert len([datagram for sender, datagram in net.sent if sender is net.server and datagram == lost[0]]) == 4


@settings(deadline=None, max_examples=50)
@given(st.binary(max_size=80))
def test_nothing_that_comes_raises_or_ends_a_session(data: bytes) -> None:
    for first in (b"", b"\x15\xfe\xfd\x00\x01", b"\x15\xfe\xfd\x00\x01" + bytes(6) + b"\x00\x1a"):
        SETTLED.server.receive_datagram(first + data, 1.0)
    assert_connected(SETTLED)


SETTLED = connected("server")
