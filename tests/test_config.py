"""The command line and the environment: what they mean, and what is said about mistakes."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization

from tests.support.certificate import write_certificate
from trio_sfu import __version__
from trio_sfu.config import Config, parse
from trio_sfu.hls.options import HlsOptions


def test_defaults() -> None:
    config = parse([], {})
    assert config == Config()
    assert (config.port, config.media_port, config.host) == (3001, 44444, None)
    assert (config.media_tcp, config.media_tcp_port) == (True, None)
    assert (config.ping_interval, config.ping_timeout, config.connect_timeout) == (25, 20, 45)
    assert config.max_payload == 1_000_000
    assert config.ice_consent_timeout == 30


def test_all_options() -> None:
    argv = (
        "--host 127.0.0.1 --port 0 --media-port 50000 --media-tcp-port 443 --no-media-tcp "
        "--announce 203.0.113.5 --announce 2001:DB8::1 --ice-consent-timeout 7.5 "
        "--ping-interval 0.3 --ping-timeout .2 --connect-timeout 1 --max-payload 2000 --resume-grace 2.5 "
        "--log-level debug"
    )
    assert parse(argv.split(), {}) == Config(
        host="127.0.0.1",
        port=0,
        media_port=50000,
        media_tcp_port=443,
        media_tcp=False,
        announce=("203.0.113.5", "2001:db8::1"),
        ice_consent_timeout=7.5,
        ping_interval=0.3,
        ping_timeout=0.2,
        connect_timeout=1.0,
        max_payload=2000,
        resume_grace=2.5,
        log_level="debug",
    )


def test_environment() -> None:
    env = {
        "TRIO_SFU_PORT": " 8080 ",
        "TRIO_SFU_MEDIA_PORT": "",
        "TRIO_SFU_MEDIA_TCP": "no",
        "TRIO_SFU_MEDIA_TCP_PORT": "0",
        "TRIO_SFU_ANNOUNCE": "203.0.113.5, 203.0.113.6 2001:db8::1",
        "TRIO_SFU_PING_INTERVAL": "1.5",
        "TRIO_SFU_LOG_LEVEL": "warning",
        "TRIO_SFU_UNKNOWN": "ignored",
        "PORT": "1",
    }
    config = parse([], env)
    assert config == Config(
        port=8080,
        media_tcp=False,
        media_tcp_port=0,
        announce=("203.0.113.5", "203.0.113.6", "2001:db8::1"),
        ping_interval=1.5,
        log_level="warning",
    )
    over = parse(["--port", "9090", "--announce", "192.0.2.1"], env)
    assert (over.port, over.announce) == (9090, ("192.0.2.1",))


def test_no_coming_back() -> None:
    assert parse([], {}).resume_grace == 15
    for zero in ("0", "0.0"):
        assert parse(["--resume-grace", zero], {}).resume_grace == 0
    assert parse([], {"TRIO_SFU_RESUME_GRACE": "0"}).resume_grace == 0


def test_turn() -> None:
    assert (parse([], {}).turn, parse([], {}).turn_secret, parse([], {}).turn_ttl) == ((), None, 86400)
    argv = ["--turn", "turn:a.example:3478?transport=udp", "--turn", "turns:b.example", "--turn-secret", "s e"]
    config = parse([*argv, "--turn-ttl", "600"], {})
    assert config.turn == ("turn:a.example:3478?transport=udp", "turns:b.example")
    assert (config.turn_secret, config.turn_ttl) == ("s e", 600)
    assert "s e" not in repr(config)
    env = {"TRIO_SFU_TURN": "turn:a.example, turn:[2001:db8::1]:80", "TRIO_SFU_TURN_SECRET": " north\n"}
    config = parse([], env)
    assert (config.turn, config.turn_secret) == (("turn:a.example", "turn:[2001:db8::1]:80"), "north")
    over = parse(["--turn", "turn:c.example"], env)
    assert (over.turn, over.turn_secret) == (("turn:c.example",), "north")


def test_live_streams() -> None:
    argv = (
        "--ffmpeg /opt/ffmpeg --hls-size 640x360 --hls-fps 25 --hls-video-bitrate 800000 --hls-audio-bitrate 64000 "
        "--hls-layout speaker --hls-tiles 9 --hls-names --hls-font a.ttf --hls-segment 4 --hls-part 0.5 "
        "--hls-window 120 --hls-ports 4000-4099 --hls-dir /tmp/hls --record-dir rec"
    )
    assert parse(argv.split(), {}).hls == HlsOptions(
        ffmpeg="/opt/ffmpeg",
        width=640,
        height=360,
        frame_rate=25,
        video_bitrate=800_000,
        audio_bitrate=64_000,
        layout="speaker",
        max_tiles=9,
        show_names=True,
        font="a.ttf",
        segment_seconds=4.0,
        part_seconds=0.5,
        window_seconds=120.0,
        first_port=4000,
        last_port=4099,
        hls_dir=Path("/tmp/hls"),
        record_dir=Path("rec"),
    )
    assert parse([], {}).hls == HlsOptions()
    assert parse(["--no-hls"], {}).hls is None


def test_live_streams_in_the_environment() -> None:
    env = {"TRIO_SFU_HLS_SIZE": "320x180", "TRIO_SFU_HLS_NAMES": "yes", "TRIO_SFU_HLS_PORTS": "5000-5009"}
    options = parse([], env).hls
    assert options == HlsOptions(width=320, height=180, show_names=True, first_port=5000, last_port=5009)
    assert parse([], {"TRIO_SFU_HLS": "0"}).hls is None
    assert parse(["--hls"], {"TRIO_SFU_HLS": "off"}).hls == HlsOptions()
    assert parse([], {"TRIO_SFU_HLS_LAYOUT": "speaker"}).hls == HlsOptions(layout="speaker")


def test_host_names() -> None:
    assert parse(["--host", "localhost"], {}).host in ("127.0.0.1", "::1")
    assert parse(["--host", "[::1]"], {}).host == "::1"
    assert parse(["--host", "::"], {}).host == "::"


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        (["--resume-grace", "-1"], "--resume-grace: -1 is not between 0.01 and 86400 seconds"),
        (["--resume-grace", "4000"], "--resume-grace: 4000 is not between 0.01 and 3600 seconds"),
        (["--resume-grace", "soon"], "--resume-grace: 'soon' is not a number of seconds"),
        (["--ice-consent-timeout", "5"], "--ice-consent-timeout: 5 is not between 6 and 600 seconds"),
        (["--port", "http"], "--port: 'http' is not a whole number"),
        (["--port", "65536"], "--port: 65536 is not between 0 and 65535"),
        (["--port", "-1"], "--port"),
        (["--port", "1" * 5000], "not a whole number"),
        (["--port"], "--port: expected one argument"),
        (["--media-port", "1e3"], "--media-port: '1e3' is not a whole number"),
        (["--announce", "example.org"], "--announce: 'example.org' is not an IP address"),
        (["--announce", "0.0.0.0"], "--announce: 0.0.0.0 is not the address of one machine"),
        (["--host", "no such host"], "--host: 'no such host' is neither"),
        (["--ping-interval", "soon"], "--ping-interval: 'soon' is not a number of seconds"),
        (["--ping-interval", "nan"], "--ping-interval: nan is not between"),
        (["--ping-timeout", "0"], "--ping-timeout: 0 is not between"),
        (["--max-payload", "10"], "--max-payload: 10 is not between 1000 and 100000000"),
        (["--log-level", "loud"], "--log-level: invalid choice: 'loud'"),
        (["--turn", "stun:example.org", "--turn-secret", "s"], "--turn: 'stun:example.org' is no TURN URL"),
        (["--turn", "turn:example.org"], "--turn needs --turn-secret as well"),
        (["--turn-secret", "s"], "--turn-secret needs --turn"),
        (["--turn", "turn:example.org", "--turn-secret", " "], "--turn-secret: it is empty"),
        (["--turn-ttl", "0"], "--turn-ttl: 0 is not between 60 and 31536000"),
        (["--tls-cert", "cert.pem"], "--tls-cert needs --tls-key as well"),
        (["--tls-key", "key.pem"], "--tls-key needs --tls-cert as well"),
        (["--tls-cert", "/nonexistent/c", "--tls-key", "/nonexistent/k"], "cannot read /nonexistent/c: No such file"),
        (["--tls-cert", __file__, "--tls-key", __file__], "not a certificate"),
        (["--hls-size", "640"], "--hls-size"),
        (["--hls-size", "641x360"], "--hls-size: 641x360: width and height must be even"),
        (["--hls-ports", "5000-5001"], "--hls-ports: 5000-5001 is not a range of at least four ports"),
        (["--hls-part", "0.1"], "--hls-part: 0.1 is not between 0.2 and 1 seconds"),
        (["--hls-window", "10"], "--hls-window must hold at least six segments"),
        (["--hls-layout", "circle"], "--hls-layout: invalid choice: 'circle'"),
        (["--unknown"], "unrecognized arguments: --unknown"),
        (["extra"], "unrecognized arguments: extra"),
    ],
)
def test_mistakes(argv: Sequence[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(argv, {})
    assert exit_.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PORT", "http", "TRIO_SFU_PORT: 'http' is not a whole number"),
        ("ANNOUNCE", "1.2.3.4,me", "TRIO_SFU_ANNOUNCE: 'me' is not an IP address"),
        ("LOG_LEVEL", "loud", "TRIO_SFU_LOG_LEVEL: 'loud' is none of debug, info"),
        ("TURN", "turn:a.example turn:", "TRIO_SFU_TURN: 'turn:' is not like turn:turn.example.org"),
        ("TURN_SECRET", "s", "--turn-secret needs --turn"),
        ("HLS", "maybe", "TRIO_SFU_HLS: 'maybe' is neither yes nor no"),
        ("HLS_LAYOUT", "circle", "TRIO_SFU_HLS_LAYOUT: 'circle' is none of grid, speaker"),
        ("TLS_CERT", "cert.pem", "--tls-cert needs --tls-key as well"),
    ],
)
def test_mistakes_in_the_environment(variable: str, value: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse([], {f"TRIO_SFU_{variable}": value})
    assert exit_.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse([option], {})
    assert exit_.value.code == 0
    assert ("TRIO_SFU_PORT" if option == "--help" else __version__) in capsys.readouterr().out


def test_tls(tmp_path: Path) -> None:
    cert, key = map(str, write_certificate(tmp_path))
    config = parse(["--tls-cert", cert, "--tls-key", key], {})
    assert (config.tls_cert, config.tls_key) == (cert, key)


def test_an_encrypted_key_is_refused_without_asking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cert, key = write_certificate(tmp_path)
    private = serialization.load_pem_private_key(key.read_bytes(), None)
    encryption = serialization.BestAvailableEncryption(b"secret")
    pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    key.write_bytes(private.private_bytes(pem, pkcs8, encryption))
    with pytest.raises(SystemExit) as exit_:
        parse(["--tls-cert", str(cert), "--tls-key", str(key)], {})
    assert exit_.value.code == 2
    assert "encrypted" in capsys.readouterr().err
