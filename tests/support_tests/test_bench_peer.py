"""The light client against the server's own state machines, in memory: each half was written without the other."""

from __future__ import annotations

import random

import pylibsrtp
import pytest

from bench import rtcp
from bench.dtls import CM, GCM, ClientIdentity
from bench.peer import ClientTransport, RemoteParameters
from bench.rtp import (
    ABS_SEND_TIME_ID,
    MID_ID,
    TRANSPORT_CC_ID,
    PacketSource,
    RtpError,
    StreamFormat,
    TransportSequence,
    parse_rtp,
)
from trio_sfu.protocols.dtls import DtlsCertificate, DtlsContext, DtlsSession
from trio_sfu.protocols.ice import IceLite, generate_pwd, generate_ufrag, peek_local_ufrag
from trio_sfu.wire import rtp as server_rtp
from trio_sfu.wire.keyframe import keyframe_test
from trio_sfu.wire.rtcp import ReceiverReport, SenderReport, parse_compound
from trio_sfu.wire.rtcp_feedback import FullIntraRequest, GenericNack, PictureLossIndication
from trio_sfu.wire.transport_feedback import TransportFeedback

CERTIFICATE = DtlsCertificate.generate()
PATH = ("127.0.0.1", 5000)


class _Server:
    """ICE-lite and DTLS on one path, without a socket."""

    def __init__(self, identity: ClientIdentity) -> None:
        self.ice: IceLite[tuple[str, int]] = IceLite(local_ufrag=generate_ufrag(), local_pwd=generate_pwd())
        self.dtls = DtlsSession(
            DtlsContext(CERTIFICATE), role="server", remote_fingerprints=[("sha-256", identity.fingerprint)]
        )
        self.requests = 0

    def receive(self, data: bytes, now: float) -> list[bytes]:
        if data[0] < 4:
            self.requests += 1
            assert peek_local_ufrag(data) == self.ice.local_ufrag
            reply = self.ice.receive_stun(data, PATH, *PATH, now).reply
            return [reply] if reply else []
        assert self.ice.is_authenticated(PATH)
        self.dtls.receive_datagram(data, now)
        return self.dtls.datagrams_to_send()


def _remote(server: _Server, fingerprints: tuple[tuple[str, str], ...] = CERTIFICATE.fingerprints) -> RemoteParameters:
    return RemoteParameters.from_reply(
        {
            "id": "t",
            "iceParameters": {"usernameFragment": server.ice.local_ufrag, "password": server.ice.local_pwd},
            "iceCandidates": [
                {"address": "192.0.2.1", "ip": "192.0.2.1", "port": 1, "protocol": "udp"},
                {"address": "127.0.0.1", "ip": "127.0.0.1", "port": 2, "protocol": "udp"},
            ],
            "dtlsParameters": {"fingerprints": [{"algorithm": a, "value": v} for a, v in fingerprints]},
        }
    )


def _shake_hands(client: ClientTransport, server: _Server, *, lose_first: int = 0, seconds: float = 10.0) -> float:
    """Exchange datagrams on a clock that jumps from timer to timer; the first ``lose_first`` never arrive."""
    now = 0.0
    client.start(now)
    while client.state == "connecting" and now < seconds:
        for datagram in client.datagrams_to_send():
            if lose_first > 0:
                lose_first -= 1
                continue
            for reply in server.receive(datagram, now):
                client.receive_datagram(reply, now)
        timer = client.get_timer()
        if timer is not None and timer > now:
            now = timer
            client.handle_timer(now)
    for datagram in client.datagrams_to_send():
        server.receive(datagram, now)
    return now


@pytest.mark.parametrize(("profiles", "name"), [(GCM, "AEAD_AES_128_GCM"), (CM, "AES128_CM_SHA1_80")])
def test_it_connects_and_each_side_reads_the_other(profiles: tuple[str, ...], name: str) -> None:
    identity = ClientIdentity(profiles)
    server = _Server(identity)
    client = ClientTransport(_remote(server), identity)
    assert client.remote.address == ("127.0.0.1", 2)
    _shake_hands(client, server)
    assert client.state == "connected", client.failure
    keys = server.dtls.srtp_keys
    assert keys is not None
    assert keys.profile == name
    assert client.dtls.profile == f"SRTP_{name}"
    profile = getattr(pylibsrtp.Policy, f"SRTP_PROFILE_{name}")
    session = pylibsrtp.Session(
        pylibsrtp.Policy(key=keys.remote, ssrc_type=pylibsrtp.Policy.SSRC_ANY_INBOUND, srtp_profile=profile)
    )
    packet = PacketSource(StreamFormat.vp8(), TransportSequence()).frame(1, 0.0, 7, key_frame=True)[0]
    assert session.unprotect(client.protect_rtp(packet)) == packet
    sending = pylibsrtp.Session(
        pylibsrtp.Policy(key=keys.local, ssrc_type=pylibsrtp.Policy.SSRC_ANY_OUTBOUND, srtp_profile=profile)
    )
    assert client.receive_datagram(sending.protect(packet), 1.0) == ("rtp", packet)
    assert client.receive_datagram(b"\x80\x60" + bytes(60), 1.0) is None
    assert client.counters["undecryptable"] == 1


def test_a_lost_request_is_repeated_and_consent_kept() -> None:
    identity = ClientIdentity()
    server = _Server(identity)
    client = ClientTransport(_remote(server), identity)
    now = _shake_hands(client, server, lose_first=2)
    assert client.state == "connected", client.failure
    before = server.requests
    for _ in range(3):
        timer = client.get_timer()
        assert timer is not None
        assert now < timer < now + 3
        now = timer
        client.handle_timer(now)
        for datagram in client.datagrams_to_send():
            for reply in server.receive(datagram, now):
                client.receive_datagram(reply, now)
    assert server.requests == before + 3
    assert client.last_consent == now


def test_a_wrong_fingerprint_fails_with_a_sentence() -> None:
    identity = ClientIdentity()
    server = _Server(identity)
    client = ClientTransport(_remote(server, (("sha-256", "00:" * 31 + "00"),)), identity)
    _shake_hands(client, server)
    assert client.state == "failed"
    assert client.failure is not None
    assert "fingerprint" in client.failure


def test_rtp_is_what_the_server_reads_and_bears_its_mark() -> None:
    rng = random.Random(1)
    stream = StreamFormat.vp8(size=1200, mid="v", rng=rng)
    source = PacketSource(stream, TransportSequence(), rng=rng)
    frames = source.frame(3, 1.0, 123, key_frame=True) + source.frame(3, 1.04, 456)
    is_key_frame = keyframe_test("video/VP8")
    assert is_key_frame is not None
    parsed = []
    for number, data in enumerate(frames):
        assert len(data) == 1200
        ours, theirs = parse_rtp(data), server_rtp.parse_rtp(data)
        assert ours.payload == data[theirs.payload_start : theirs.payload_end]
        assert ours.extensions == theirs.extensions
        assert (ours.ssrc, ours.timestamp, ours.marker) == (theirs.ssrc, theirs.timestamp, theirs.marker)
        assert ours.extensions[MID_ID] == b"v"
        assert len(ours.extensions[ABS_SEND_TIME_ID]) == 3
        assert int.from_bytes(ours.extensions[TRANSPORT_CC_ID]) == number
        assert ours.mark is not None
        assert (ours.mark.number, ours.mark.sent_ns) == (number, 123 if number < 3 else 456)
        assert is_key_frame(ours.payload) == (number == 0)
        parsed.append(ours)
    assert [packet.marker for packet in parsed] == [False, False, True] * 2
    assert len({packet.timestamp for packet in parsed}) == 2
    again = source.retransmission(parsed[1].sequence_number, 2.0)
    assert again is not None
    rtx = parse_rtp(again)
    assert (rtx.payload_type, rtx.ssrc) == (stream.rtx_payload_type, stream.rtx_ssrc)
    assert rtx.payload == parsed[1].sequence_number.to_bytes(2) + parsed[1].payload
    assert rtx.timestamp == parsed[1].timestamp


def test_the_clients_parsers_raise_nothing_but_their_own_errors() -> None:
    rng = random.Random(2)
    packet = PacketSource(StreamFormat.opus(), TransportSequence()).frame(1, 0.0, 0)[0]
    report = rtcp.receiver_report(1, 2, highest_sequence=3) + rtcp.nack(1, 2, [5])
    for _ in range(3000):
        for good, parse in ((packet, parse_rtp), (report, rtcp.parse_rtcp)):
            mutated = bytearray(good[: rng.randrange(len(good) + 1)])
            for _ in range(rng.randrange(4)):
                if mutated:
                    mutated[rng.randrange(min(20, len(mutated)))] = rng.randrange(256)
            try:
                parse(bytes(mutated))
            except (RtpError, rtcp.RtcpError):
                pass


def test_rtcp_is_what_the_server_reads() -> None:
    compound = (
        rtcp.receiver_report(1, 2, highest_sequence=70000, lost=3, lsr=4, dlsr=5)
        + rtcp.nack(1, 2, [7, 65535])
        + rtcp.picture_loss_indication(1, 2)
        + rtcp.transport_feedback(
            1, 2, base_sequence=65534, feedback_count=300, reference_time=9, deltas=bytes((4, 0, 255, 8, 9))
        )
        + rtcp.sender_report(1, 100.5, 6, 7, 8)
    )
    report, nack, pli, feedback, sender = parse_compound(compound)
    assert isinstance(report, ReceiverReport)
    block = report.reports[0]
    assert (report.ssrc, block.ssrc, block.packets_lost, block.highest_sequence) == (1, 2, 3, 70000)
    assert (block.lsr, block.dlsr) == (4, 5)
    assert isinstance(nack, GenericNack)
    assert (nack.media_ssrc, set(nack.lost)) == (2, {7, 65535})
    assert isinstance(pli, PictureLossIndication)
    assert pli.media_ssrc == 2
    assert isinstance(feedback, TransportFeedback)
    assert (feedback.base_sequence, feedback.feedback_count, feedback.reference_time) == (65534, 300 & 0xFF, 9)
    assert feedback.deltas == (4, 0, 255, 8, 9)
    assert isinstance(sender, SenderReport)
    assert (sender.ntp_time >> 32, sender.packet_count, sender.octet_count) == (2208988900, 7, 8)


def test_the_servers_rtcp_is_understood() -> None:
    data = (
        GenericNack(1, 2, (10, 12, 26, 40)).to_bytes()
        + PictureLossIndication(1, 2).to_bytes()
        + FullIntraRequest(1, ((3, 0),)).to_bytes()
    )
    nack, pli, fir = rtcp.parse_rtcp(data)
    assert sorted(nack.lost) == [10, 12, 26, 40]
    assert not nack.is_key_frame_request
    assert pli.is_key_frame_request
    assert fir.is_key_frame_request
    assert (nack.media_ssrc, pli.media_ssrc, fir.media_ssrc) == (2, 2, 3)
