"""Two DTLS sessions joined by seeded bad links, under a clock that only the test moves."""

import datetime
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from OpenSSL import SSL

from tests.support.lossy_link import LinkSettings, LossyLink
from trio_sfu.protocols.dtls import (
    MAX_DATAGRAM,
    DtlsCertificate,
    DtlsContext,
    DtlsRole,
    DtlsSession,
    DtlsState,
    SrtpProfile,
)

# One context a side for all tests, as one serves all transports of a process.
LEFT = DtlsContext(DtlsCertificate.generate())
RIGHT = DtlsContext(DtlsCertificate.generate())
KEY_LENGTHS: dict[SrtpProfile, int] = {
    "AEAD_AES_128_GCM": 16 + 12,
    "AEAD_AES_256_GCM": 32 + 12,
    "AES128_CM_SHA1_80": 16 + 14,
}


def state_of(session: DtlsSession) -> DtlsState:
    """The state, without the type checker concluding from one assertion that the next cannot hold."""
    return session.state


def new_session(
    role: DtlsRole,
    *,
    context: DtlsContext = LEFT,
    peer: DtlsContext = RIGHT,
    fingerprints: Iterable[tuple[str, str]] | None = None,
    handshake_timeout: float = 30.0,
) -> DtlsSession:
    expected = peer.certificate.fingerprints if fingerprints is None else tuple(fingerprints)
    return DtlsSession(context, role=role, remote_fingerprints=expected, handshake_timeout=handshake_timeout)


class Patient(DtlsSession):
    """One that goes on with OpenSSL when it is connected, as other people's peers do."""

    def _let_go(self) -> None:
        pass

    @property
    def connection_of_openssl(self) -> SSL.Connection:
        assert self._connection is not None
        return self._connection


@dataclass
class Net:
    """A client, a server and a link each way. ``drop`` sees (sender, datagram) before the link does."""

    client: DtlsSession = field(default_factory=lambda: new_session("client"))
    server: DtlsSession = field(default_factory=lambda: new_session("server", context=RIGHT, peer=LEFT))
    settings: LinkSettings = field(default_factory=LinkSettings)
    seed: int = 0
    drop: Callable[[DtlsSession, bytes], bool] = lambda _sender, _datagram: False
    now: float = 0.0
    sent: list[tuple[DtlsSession, bytes]] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = random.Random(self.seed)
        self.links = [LossyLink[DtlsSession](self.settings, rng) for _ in range(2)]

    def flush(self) -> None:
        for sender, receiver, link in (
            (self.client, self.server, self.links[0]),
            (self.server, self.client, self.links[1]),
        ):
            for datagram in sender.datagrams_to_send():
                assert 0 < len(datagram) <= MAX_DATAGRAM
                self.sent.append((sender, datagram))
                if not self.drop(sender, datagram):
                    link.send(datagram, receiver, self.now)

    def run(self, until: float = 60.0) -> None:
        """Move from one event to the next until nothing is left to happen, or to ``until``."""
        self.flush()
        while True:
            sources: tuple[DtlsSession | LossyLink[DtlsSession], ...]
            sources = (self.client, self.server, *self.links)
            due = min((timer for source in sources if (timer := source.get_timer()) is not None), default=None)
            if due is None or due > until:
                return
            self.now = max(self.now, due)
            for link in self.links:
                for receiver, datagram in link.receive(self.now):
                    receiver.receive_datagram(datagram, self.now)
            for session in (self.client, self.server):
                timer = session.get_timer()
                if timer is not None and timer <= self.now:
                    session.handle_timer(self.now)
            self.flush()

    def connect(self) -> None:
        self.client.start(self.now)
        self.run()


def assert_connected(net: Net) -> None:
    assert (net.client.state, net.client.failure) == ("connected", None)
    assert (net.server.state, net.server.failure) == ("connected", None)
    ours, theirs = net.client.srtp_keys, net.server.srtp_keys
    assert ours is not None
    assert theirs is not None
    assert ours.profile == theirs.profile
    assert ours.local == theirs.remote
    assert ours.remote == theirs.local
    assert ours.local != ours.remote
    assert len(ours.local) == len(ours.remote) == KEY_LENGTHS[ours.profile]
    assert net.client.get_timer() is None
    assert net.server.get_timer() is None


def test_connects_with_crosswise_keys_in_two_round_trips() -> None:
    net = Net(settings=LinkSettings(delay=0.01))
    assert (net.client.state, net.server.state) == ("new", "new")
    assert net.client.get_timer() is None
    net.connect()
    assert_connected(net)
    assert net.now == pytest.approx(0.04)
    assert net.client.srtp_keys is not None
    assert net.client.srtp_keys.profile == "AEAD_AES_128_GCM"
    assert net.client.datagrams_to_send() == net.server.datagrams_to_send() == []


def test_sessions_of_one_context_in_both_roles_have_keys_of_their_own() -> None:
    first = Net(client=new_session("client"), server=new_session("server", context=RIGHT, peer=LEFT))
    second = Net(client=new_session("client", context=RIGHT, peer=LEFT), server=new_session("server"))
    for net in (first, second):
        net.connect()
        assert_connected(net)
    assert first.client.srtp_keys is not None
    assert second.client.srtp_keys is not None
    assert first.client.srtp_keys.local != second.client.srtp_keys.local


def test_keys_are_not_shown_by_accident() -> None:
    net = Net()
    net.connect()
    assert net.client.srtp_keys is not None
    text = repr(net.client.srtp_keys)
    assert "AEAD_AES_128_GCM" in text
    assert "local" not in text
    assert "remote" not in text


@pytest.mark.parametrize(
    ("client_profiles", "server_profiles", "chosen"),
    [
        (["AES128_CM_SHA1_80", "AEAD_AES_128_GCM"], None, "AEAD_AES_128_GCM"),  # the server's order wins
        (["AES128_CM_SHA1_80", "AEAD_AES_256_GCM"], None, "AEAD_AES_256_GCM"),
        (["AES128_CM_SHA1_80"], None, "AES128_CM_SHA1_80"),
        (None, ["AES128_CM_SHA1_80", "AEAD_AES_128_GCM"], "AES128_CM_SHA1_80"),
        (None, ["AEAD_AES_256_GCM"], "AEAD_AES_256_GCM"),
    ],
)
def test_srtp_profiles(
    client_profiles: list[SrtpProfile] | None, server_profiles: list[SrtpProfile] | None, chosen: SrtpProfile
) -> None:
    left = DtlsContext(LEFT.certificate, srtp_profiles=client_profiles)
    right = DtlsContext(RIGHT.certificate, srtp_profiles=server_profiles)
    net = Net(
        client=new_session("client", context=left, peer=right),
        server=new_session("server", context=right, peer=left),
    )
    net.connect()
    assert_connected(net)
    assert net.client.srtp_keys is not None
    assert net.client.srtp_keys.profile == chosen


def test_no_common_srtp_profile_fails_both() -> None:
    left = DtlsContext(LEFT.certificate, srtp_profiles=["AES128_CM_SHA1_80"])
    right = DtlsContext(RIGHT.certificate, srtp_profiles=["AEAD_AES_128_GCM"])
    net = Net(
        client=new_session("client", context=left, peer=right),
        server=new_session("server", context=right, peer=left),
    )
    net.connect()
    for session in (net.client, net.server):
        assert state_of(session) == "failed"
        assert session.srtp_keys is None
        assert session.failure is not None
        assert "SRTP protection profile" in session.failure
        assert session.get_timer() is None


@pytest.mark.parametrize("role", ["client", "server"])
def test_wrong_fingerprint_gives_no_keys(role: DtlsRole) -> None:
    wrong = DtlsCertificate.generate().fingerprints
    net = Net()
    if role == "client":
        net.client = new_session("client", fingerprints=wrong)
        suspicious, other = net.client, net.server
    else:
        net.server = new_session("server", context=RIGHT, fingerprints=wrong)
        suspicious, other = net.server, net.client
    net.connect()
    assert state_of(suspicious) == "failed"
    assert suspicious.srtp_keys is None
    assert suspicious.failure is not None
    assert "fingerprint" in suspicious.failure
    # Nothing more comes of it, and the other one is told.
    assert other.state in ("closed", "failed")
    suspicious.receive_datagram(net.sent[0][1], net.now)
    assert suspicious.datagrams_to_send() == []
    assert state_of(suspicious) == "failed"


def _sha1(certificate: DtlsCertificate) -> str:
    return certificate.certificate.fingerprint(hashes.SHA1()).hex(":").upper()


def _sha224(certificate: DtlsCertificate) -> str:
    return certificate.certificate.fingerprint(hashes.SHA224()).hex(":").upper()


def test_certificate_has_the_fingerprints_of_cryptography() -> None:
    certificate = RIGHT.certificate
    algorithms = {"sha-256": hashes.SHA256(), "sha-384": hashes.SHA384(), "sha-512": hashes.SHA512()}
    assert certificate.fingerprints == tuple(
        (name, certificate.certificate.fingerprint(algorithm).hex(":").upper())
        for name, algorithm in algorithms.items()
    )


@pytest.mark.parametrize(
    "fingerprints",
    [
        [RIGHT.certificate.fingerprints[0]],
        [RIGHT.certificate.fingerprints[1]],
        [RIGHT.certificate.fingerprints[2]],
        [("SHA-256", RIGHT.certificate.fingerprints[0][1].lower())],
        [("sha-1", _sha1(RIGHT.certificate))],
        [("sha-224", _sha224(RIGHT.certificate))],
        [("md2", "00"), RIGHT.certificate.fingerprints[0]],  # unknown ones are passed over
        [LEFT.certificate.fingerprints[0], RIGHT.certificate.fingerprints[0]],  # one of several certificates
        [LEFT.certificate.fingerprints[0], RIGHT.certificate.fingerprints[1]],  # the best algorithm counts
    ],
)
def test_fingerprints_that_match(fingerprints: list[tuple[str, str]]) -> None:
    net = Net(client=new_session("client", fingerprints=fingerprints))
    net.connect()
    assert_connected(net)


def test_a_weaker_fingerprint_does_not_make_up_for_a_stronger_one() -> None:
    sha256, sha384, _ = RIGHT.certificate.fingerprints
    wrong = LEFT.certificate.fingerprints[1]
    assert wrong[0] == sha384[0]
    net = Net(client=new_session("client", fingerprints=[sha256, wrong]))
    net.connect()
    assert state_of(net.client) == "failed"
    assert net.client.srtp_keys is None


@pytest.mark.parametrize(
    "fingerprints",
    [
        [],
        [("md5", "00:11")],
        [("sha-256", "")],
        [("sha-256", "AA:BB")],
        [("sha-256", RIGHT.certificate.fingerprints[0][1].replace(":", ""))],
        [("sha-256", RIGHT.certificate.fingerprints[0][1].replace("A", "G").replace("0", "O"))],
        [("sha-256", RIGHT.certificate.fingerprints[1][1])],
        [("sha-256", "é" * 95)],
    ],
)
def test_unusable_fingerprints_are_refused_at_once(fingerprints: list[tuple[str, str]]) -> None:
    with pytest.raises(ValueError, match="fingerprint"):
        new_session("server", fingerprints=fingerprints)


@pytest.mark.parametrize("loss", [0.05, 0.3])
@pytest.mark.parametrize("seed", range(10))
def test_bad_link(loss: float, seed: int) -> None:
    settings = LinkSettings(loss=loss, delay=0.05, jitter=0.05, duplicate=0.2, reorder=0.3, reorder_delay=0.15)
    net = Net(settings=settings, seed=seed)
    net.connect()
    assert_connected(net)
    assert net.now < 15.0
    assert len(net.sent) < 60


@pytest.mark.parametrize("flight", [0, 1, 2, 3])
def test_each_flight_lost_once_is_sent_again_soon(flight: int) -> None:
    """The last of these is the server's last flight, lost after it has completed."""
    dropped: list[bytes] = []

    def drop(_sender: DtlsSession, datagram: bytes) -> bool:
        if len(net.sent) - 1 == flight:
            dropped.append(datagram)
            return True
        return False

    net = Net(settings=LinkSettings(delay=0.01), drop=drop)
    net.connect()
    assert len(dropped) == 1
    assert_connected(net)
    assert net.now < 0.2


def test_completed_peers_do_not_answer_each_other_for_ever() -> None:
    net = Net(settings=LinkSettings(delay=0.1, duplicate=1.0))
    net.connect()
    assert_connected(net)
    before = len(net.sent)
    for sender, datagram in net.sent[:before]:
        receiver = net.server if sender is net.client else net.client
        receiver.receive_datagram(datagram, net.now + 1.0)
    net.run()
    assert_connected(net)
    assert len(net.sent) - before <= 2


def test_last_flight_is_not_kept_for_ever() -> None:
    net = Net()
    net.connect()
    finished = next(data for sender, data in reversed(net.sent) if sender is net.client)
    net.server.receive_datagram(finished, net.now + 1.0)
    assert net.server.datagrams_to_send() != []
    net.server.receive_datagram(finished, net.now + 1.01)  # not so fast
    assert net.server.datagrams_to_send() == []
    net.server.receive_datagram(finished, net.now + 100.0)
    assert net.server.datagrams_to_send() == []
    assert_connected(net)


@pytest.mark.parametrize("silent", ["client", "server"])
def test_silence_fails_after_the_time_given(silent: DtlsRole) -> None:
    net = Net(client=new_session("client", handshake_timeout=12.0))
    net.server = new_session("server", context=RIGHT, peer=LEFT, handshake_timeout=12.0)
    waiting = net.client if silent == "server" else net.server
    hello_came = False

    def drop(sender: DtlsSession, _datagram: bytes) -> bool:
        nonlocal hello_came
        first, hello_came = not hello_came, True
        return sender is not waiting and not (silent == "client" and first)

    net.drop = drop
    net.connect()
    assert state_of(waiting) == "failed"
    assert waiting.failure is not None
    assert "12 s" in waiting.failure
    assert waiting.get_timer() is None
    assert net.now == pytest.approx(12.0)
    repeats = sum(sender is waiting for sender, _ in net.sent)
    assert 5 <= repeats <= 30


def test_timers_called_early_or_late_do_no_harm() -> None:
    net = Net()
    net.client.handle_timer(0.0)
    net.client.start(0.0)
    first = net.client.datagrams_to_send()
    assert len(first) == 1
    timer = net.client.get_timer()
    assert timer is not None
    assert 0.0 < timer <= 0.2
    net.client.handle_timer(timer - 0.001)
    assert net.client.datagrams_to_send() == []
    net.client.handle_timer(timer)
    assert net.client.datagrams_to_send() == first
    later = net.client.get_timer()
    assert later is not None
    assert later > timer
    net.client.start(1.0)  # has begun already
    assert net.client.datagrams_to_send() == []


def test_outgoing_datagrams_are_bounded() -> None:
    session = new_session("client", handshake_timeout=1e6)
    session.start(0.0)
    now = 0.0
    for _ in range(500):
        now += 10.0
        session.handle_timer(now)
    assert len(session.datagrams_to_send()) <= 64


def test_a_client_does_not_listen_before_it_starts() -> None:
    client = new_session("client")
    other = new_session("client", context=RIGHT, peer=LEFT)
    other.start(0.0)
    for datagram in other.datagrams_to_send():
        client.receive_datagram(datagram, 0.0)
    assert state_of(client) == "new"
    assert client.datagrams_to_send() == []


def test_starting_a_server_waits() -> None:
    server = new_session("server")
    server.start(0.0)
    assert state_of(server) == "new"
    assert server.get_timer() is None
    assert server.datagrams_to_send() == []


def test_two_clients_and_two_servers_fail_or_wait_politely() -> None:
    first = new_session("client", handshake_timeout=2.0)
    second = new_session("client", context=RIGHT, peer=LEFT, handshake_timeout=2.0)
    second.start(0.0)
    net = Net(client=first, server=second)
    net.connect()
    for session in (first, second):
        assert state_of(session) == "failed"
        assert session.srtp_keys is None


@pytest.mark.parametrize("closer", ["client", "server"])
def test_close_notify(closer: DtlsRole) -> None:
    net = Net()
    net.connect()
    active, passive = (net.client, net.server) if closer == "client" else (net.server, net.client)
    active.close()
    assert state_of(active) == "closed"
    net.run()
    assert state_of(passive) == "closed"
    assert active.failure is passive.failure is None
    sent = len(net.sent)
    for session in (net.client, net.server):
        session.close()
        session.receive_datagram(net.sent[0][1], net.now)
        session.handle_timer(net.now + 100.0)
        session.start(net.now)
        assert state_of(session) == "closed"
        assert session.get_timer() is None
    net.run()
    assert len(net.sent) == sent


def test_close_before_and_during_the_handshake() -> None:
    session = new_session("client")
    session.close()
    assert state_of(session) == "closed"
    session.start(0.0)
    assert session.datagrams_to_send() == []

    session = new_session("client")
    session.start(0.0)
    session.close()
    assert state_of(session) == "closed"
    assert session.get_timer() is None
    assert session.srtp_keys is None


def test_failure_is_final() -> None:
    net = Net(client=new_session("client", fingerprints=LEFT.certificate.fingerprints))
    net.connect()
    failure = net.client.failure
    net.client.close()
    assert state_of(net.client) == "failed"
    assert net.client.failure == failure


def test_a_peer_without_certificate_is_refused() -> None:
    class Anonymous(DtlsContext):
        def __init__(self) -> None:
            self.certificate = LEFT.certificate
            self._context = SSL.Context(SSL.DTLS_METHOD)
            self._context.set_options(SSL.OP_NO_QUERY_MTU)
            self._context.set_tlsext_use_srtp(b"SRTP_AEAD_AES_128_GCM")

    net = Net(client=new_session("client", context=Anonymous()))
    net.connect()
    assert state_of(net.server) == "failed"
    assert net.server.srtp_keys is None
    assert net.server.failure is not None
    assert net.server.failure.startswith("the DTLS handshake failed")
    assert net.client.state == "failed"
    assert net.client.srtp_keys is None


def test_a_large_certificate_is_cut_to_datagrams() -> None:
    """3 KiB of certificate: handshake messages in several records, several datagrams a flight."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, f"{number:02}" * 32) for number in range(20)]
    )
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    large = DtlsContext(DtlsCertificate(certificate, key))
    for seed in range(5):
        net = Net(
            client=new_session("client", context=LEFT, peer=large),
            server=new_session("server", context=large, peer=LEFT),
            settings=LinkSettings(loss=0.1, delay=0.02, reorder=0.2),
            seed=seed,
        )
        net.connect()
        assert_connected(net)
        sizes = [len(datagram) for sender, datagram in net.sent if sender is net.server]
        assert len(sizes) >= 4
        assert max(sizes) > 1000


GARBAGE = [
    b"",
    b"\x16",
    bytes(100),
    b"\x80" * 100,  # RTP
    b"\x16\xfe\xfd" + bytes(8) + b"\xff\xff",  # says 65535 bytes, has none
    b"\x16\xfe\xfd" + bytes(8) + b"\x00\x10" + bytes(5),  # truncated
    b"\x16\x03\x03" + bytes(8) + b"\x00\x04abcd",  # TLS
    b"\x16\xfe\xfd\x00\x05" + bytes(6) + b"\x00\x10" + bytes(16),  # an epoch to come
    b"\x3f" * 64,  # DTLS 1.3
    b"\x17\xfe\xfd\x00\x01" + bytes(6) + b"\x00\x04data",  # application data of the next epoch, too early
]


@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_between_the_flights_is_dropped(garbage: bytes) -> None:
    net = Net(settings=LinkSettings(delay=0.01))
    net.client.start(0.0)
    for now in (0.0, 0.01, 0.02, 0.03, 0.04):
        for session in (net.client, net.server):
            session.receive_datagram(garbage, now)
        net.run(until=now)
    net.run()
    assert_connected(net)
    for session in (net.client, net.server):
        session.receive_datagram(garbage, 1.0)
    assert_connected(net)


def test_application_data_is_dropped() -> None:
    client = Patient(LEFT, role="client", remote_fingerprints=RIGHT.certificate.fingerprints)
    net = Net(client=client)
    net.connect()
    client.connection_of_openssl.send(b"an SCTP packet, perhaps")
    record = client.connection_of_openssl.bio_read(2000)
    net.server.receive_datagram(record, net.now)
    assert net.server.datagrams_to_send() == []
    assert_connected(net)


@pytest.mark.parametrize("receiver", ["client", "server"])
def test_plaintext_fatal_alert_fails_the_handshake_only(receiver: DtlsRole) -> None:
    def alert(sequence: int) -> bytes:
        return b"\x15\xfe\xfd\x00\x00" + sequence.to_bytes(6, "big") + b"\x00\x02\x02\x28"

    net = Net(settings=LinkSettings(delay=0.01))
    net.client.start(0.0)
    net.run(until=0.015)
    session = net.client if receiver == "client" else net.server
    session.receive_datagram(alert(100), 0.015)
    assert state_of(session) == "failed"
    assert session.failure is not None
    assert "handshake failure" in session.failure

    net = Net()
    net.connect()
    for session in (net.client, net.server):
        session.receive_datagram(alert(200), net.now)
    assert_connected(net)


def test_close_notify_during_the_handshake_fails_it() -> None:
    net = Net()
    net.client.start(0.0)
    net.client.receive_datagram(b"\x15\xfe\xfd" + bytes(8) + b"\x00\x02\x01\x00", 0.0)
    assert state_of(net.client) == "failed"
    assert net.client.failure == "the DTLS handshake failed: closed by the peer"


@settings(deadline=None)
@given(
    st.integers(0, 2**32),
    st.floats(0.0, 0.5),
    st.lists(st.tuples(st.integers(0, 1200), st.integers(0, 255)), min_size=1, max_size=4),
    st.booleans(),
)
def test_mutated_datagrams(seed: int, share: float, changes: list[tuple[int, int]], cut: bool) -> None:
    """Whatever happens to the bytes: no exception, keys exactly while connected, a sentence exactly when failed,
    and the next session of the same contexts is untouched."""
    rng = random.Random(seed)
    net = Net(settings=LinkSettings(delay=0.01))

    def drop(sender: DtlsSession, datagram: bytes) -> bool:
        if rng.random() >= share:
            return False
        mutated = bytearray(datagram)
        for position, value in changes:
            mutated[position % len(mutated)] = value
        if cut:
            del mutated[changes[0][0] % len(mutated) :]
        (net.server if sender is net.client else net.client).receive_datagram(bytes(mutated), net.now)
        return rng.random() < 0.5

    net.drop = drop
    net.connect()
    for session in (net.client, net.server):
        assert session.state in ("new", "connected", "failed", "closed")
        assert (session.srtp_keys is not None) == (session.state in ("connected", "closed"))
        assert (session.failure is not None) == (session.state == "failed")
    untouched = Net()
    untouched.connect()
    assert_connected(untouched)


@settings(deadline=None)
@given(st.binary(max_size=100), st.sampled_from(["client", "server"]))
def test_random_datagrams_never_raise(data: bytes, role: DtlsRole) -> None:
    session = new_session(role)
    session.start(0.0)
    for first in (b"", b"\x14", b"\x15", b"\x16", b"\x16\xfe\xfd", b"\x17", b"\x2f"):
        session.receive_datagram(first + data, 0.0)
    assert session.srtp_keys is None
    assert state_of(session) != "connected"
