"""The configuration of a server: the command line, the environment, and the defaults.

``__main__`` parses it, server.py reads it. The names are a contract (README); every option has a variable
in the environment: ``TRIO_SFU_`` and its name in capitals. The command line wins.
"""

import argparse
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from math import isfinite
from pathlib import Path
from typing import Any, Final

from trio_sfu import __version__
from trio_sfu.hls.options import LAYOUTS, HlsOptions
from trio_sfu.rooms.room import RoomLimits
from trio_sfu.rooms.turn import check_turn_url
from trio_sfu.signalling.tls import load_tls_context

PREFIX: Final = "TRIO_SFU_"
_SEVERAL: Final = ("announce", "turn")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class Config:
    """What a server is told. ``host`` None means all addresses of the machine; ports 0 mean any free one."""

    host: str | None = None
    port: int = 3001
    media_port: int = 44444
    media_tcp: bool = True
    media_tcp_port: int | None = None  # the number of media_port
    announce: tuple[str, ...] = ()
    turn: tuple[str, ...] = ()
    turn_secret: str | None = field(default=None, repr=False)  # given where turn is
    turn_ttl: int = 86400  # seconds
    tls_cert: str | None = None
    tls_key: str | None = None
    ice_consent_timeout: float = 30.0
    """Seconds without a sign of consent after which a transport is given up (RFC 7675)."""
    ping_interval: float = 25.0  # seconds, as the next two
    ping_timeout: float = 20.0
    connect_timeout: float = 45.0
    max_payload: int = 1_000_000  # bytes
    resume_grace: float = 15.0
    """Seconds for which a user stays whose socket is lost, where the client asked for it. 0: nobody does."""
    log_level: str = "info"
    limits: RoomLimits = field(default_factory=RoomLimits)
    hls: HlsOptions | None = field(default_factory=HlsOptions)
    """None: rooms have no live streams."""


def parse(argv: Sequence[str], env: Mapping[str, str]) -> Config:
    """The configuration that ``argv`` (without the program's name) and ``env`` ask for.

    A bad value ends in SystemExit with status 2 and a sentence on standard error, and so do files
    that cannot be read; ``--help`` and ``--version`` with status 0.
    """
    parser = _parser()
    several: dict[str, Any] = {}  # options that may be repeated, as the environment has them
    for action in parser._actions:
        variable = _variable(action.dest)
        if action.dest in ("help", "version") or not env.get(variable, "").strip():
            continue
        value = _from_environment(parser, action, variable, env[variable])
        if action.dest in _SEVERAL:
            several[action.dest] = value  # as a default, the command line's would be added to it
        else:
            action.default = value
    options = parser.parse_args(argv)
    if (options.tls_cert is None) != (options.tls_key is None):
        given, missing = ("--tls-cert", "--tls-key") if options.tls_cert else ("--tls-key", "--tls-cert")
        parser.error(f"{given} needs {missing} as well")
    values = vars(options)
    for name in _SEVERAL:
        values[name] = tuple(values[name] or several.get(name, ()))
    if bool(values["turn"]) != (options.turn_secret is not None):
        parser.error("--turn-secret needs --turn" if not values["turn"] else "--turn needs --turn-secret as well")
    values["hls"] = _hls_options(parser, values)
    config = Config(**values)
    if config.tls_cert is not None:
        try:
            load_tls_context(config.tls_cert, options.tls_key)
        except (OSError, ValueError) as error:
            parser.error(_about_tls(config, error))
    return config


def _hls_options(parser: argparse.ArgumentParser, values: dict[str, Any]) -> HlsOptions | None:
    """Take what concerns live streams out of ``values``."""
    wanted = values.pop("hls")
    values["hls_width"], values["hls_height"] = values.pop("hls_size")
    values["hls_first_port"], values["hls_last_port"] = values.pop("hls_ports")
    chosen = {name: values.pop(name) for name in tuple(values) if name in _OF_HLS}
    options = HlsOptions(**{_OF_HLS[name]: value for name, value in chosen.items()})
    if options.window_seconds < 6 * options.segment_seconds:
        parser.error("--hls-window must hold at least six segments, see --hls-segment")
    if options.part_seconds > options.segment_seconds:
        parser.error("--hls-part must not be longer than --hls-segment")
    return options if wanted else None


#: What an option's value is called in HlsOptions.
_OF_HLS: Final = {
    "ffmpeg": "ffmpeg",
    "record_dir": "record_dir",
    "hls_dir": "hls_dir",
    "hls_width": "width",
    "hls_height": "height",
    "hls_fps": "frame_rate",
    "hls_video_bitrate": "video_bitrate",
    "hls_audio_bitrate": "audio_bitrate",
    "hls_layout": "layout",
    "hls_tiles": "max_tiles",
    "hls_names": "show_names",
    "hls_font": "font",
    "hls_segment": "segment_seconds",
    "hls_part": "part_seconds",
    "hls_window": "window_seconds",
    "hls_first_port": "first_port",
    "hls_last_port": "last_port",
}


def _about_tls(config: Config, error: Exception) -> str:
    for option, path in (("--tls-cert", config.tls_cert), ("--tls-key", config.tls_key)):
        try:
            assert path is not None
            with open(path, "rb"):
                pass
        except OSError as unreadable:
            return f"{option}: cannot read {path}: {unreadable.strerror}"
    reason = error.reason if isinstance(error, ssl.SSLError) else error
    return f"--tls-cert and --tls-key: not a certificate and its unencrypted key, in PEM form ({reason})"


def _parser() -> argparse.ArgumentParser:
    defaults = Config()
    parser = argparse.ArgumentParser(
        prog="trio-sfu",
        description="A WebRTC conference server: pages, signalling and media in one process.",
        epilog=f"Each option can also be set in the environment: {PREFIX}PORT, {PREFIX}MEDIA_PORT, "
        f"{PREFIX}ANNOUNCE (several: with commas or spaces between), and so on.",
        allow_abbrev=False,
    )

    def add(name: str, kind: Callable[[str], object], metavar: str, help_text: str, default: object = ...) -> None:
        if default is ...:
            default = getattr(defaults, name[2:].replace("-", "_"))
        if default is not None:
            shown = f"{default:.3g}" if isinstance(default, float) else str(default)
            if isinstance(default, tuple):
                shown = f"{default[0]}{'x' if metavar == 'WxH' else '-'}{default[1]}"
            help_text += f" (default: {shown})"
        parser.add_argument(name, type=kind, metavar=metavar, default=default, help=help_text)

    def add_switch(name: str, default: bool, help_text: str) -> None:
        parser.add_argument(name, action=argparse.BooleanOptionalAction, default=default, help=help_text)

    add("--host", _host, "ADDRESS", "listen on this address only (default: all)")
    add("--port", _integer(0, 65535), "PORT", "TCP port of pages and signalling; 0: any free one")
    add("--media-port", _integer(0, 65535), "PORT", "UDP port of all media; 0: any free one")
    add_switch("--media-tcp", defaults.media_tcp, "take media by TCP too, from browsers whose network blocks UDP")
    add("--media-tcp-port", _integer(0, 65535), "PORT", "its TCP port; 0: any free one (default: as --media-port)")
    parser.add_argument(
        "--announce",
        type=_address,
        metavar="ADDRESS",
        action="append",
        help="IP address that clients are told to send media to; may be given several times "
        "(default: the addresses of this machine)",
    )
    parser.add_argument(
        "--turn",
        type=_turn_url,
        metavar="URL",
        action="append",
        help="a TURN server that clients are told of, such as turn:turn.example.org:3478?transport=udp or "
        "turns:turn.example.org; may be given several times",
    )
    parser.add_argument(
        "--turn-secret",
        type=_secret,
        metavar="SECRET",
        help="what it shares with this server (coturn: use-auth-secret, static-auth-secret); everybody on this "
        f"machine can see a command line, so set {PREFIX}TURN_SECRET instead",
    )
    add("--turn-ttl", _integer(60, 31_536_000), "SECONDS", "how long clients' credentials are good")
    add("--tls-cert", str, "FILE", "serve HTTPS with this certificate chain (PEM)")
    add("--tls-key", str, "FILE", "its private key (PEM)")
    add("--ice-consent-timeout", _consent, "SECONDS", "how long a media transport lives that is heard of no more")
    add("--ping-interval", _seconds, "SECONDS", "how often clients are pinged")
    add("--ping-timeout", _seconds, "SECONDS", "how long a client may take to answer a ping")
    add("--connect-timeout", _seconds, "SECONDS", "how long a client may take to connect to Socket.IO")
    add("--max-payload", _integer(1_000, 100_000_000), "BYTES", "the largest message a client may send")
    add("--resume-grace", _grace, "SECONDS", "how long a resumable user stays whose connection is lost; 0: not at all")
    parser.add_argument(
        "--log-level",
        choices=LOG_LEVELS,
        default=defaults.log_level,
        help="what is logged to standard error (default: %(default)s)",
    )
    hls = HlsOptions()
    add_switch("--hls", True, "make a live HLS stream of each room")
    add("--ffmpeg", str, "PROGRAM", "the FFmpeg to use (default: that of the package imageio-ffmpeg)", hls.ffmpeg)
    add("--hls-size", _size, "WxH", "the live picture's size in pixels", (hls.width, hls.height))
    add("--hls-fps", _integer(5, 60), "RATE", "its frames a second", hls.frame_rate)
    add("--hls-video-bitrate", _integer(50_000, 50_000_000), "BPS", "its bits a second, at most", hls.video_bitrate)
    add("--hls-audio-bitrate", _integer(16_000, 512_000), "BPS", "bits a second of the mixed sound", hls.audio_bitrate)
    parser.add_argument(
        "--hls-layout",
        choices=LAYOUTS,
        default=hls.layout,
        help="tiles of one size, or whoever speaks large and the others small below (default: %(default)s)",
    )
    add("--hls-tiles", _integer(1, 49), "NUMBER", "participants in the picture; more are only heard", hls.max_tiles)
    add_switch("--hls-names", hls.show_names, "write the participants' names on their tiles")
    add("--hls-font", str, "FILE", "the font of the names (default: what the system has)", hls.font)
    add("--hls-segment", _between(1.0, 10.0), "SECONDS", "length of a segment", hls.segment_seconds)
    add("--hls-part", _between(0.2, 1.0), "SECONDS", "length of a part, for low latency", hls.part_seconds)
    add("--hls-window", _between(6.0, 3600.0), "SECONDS", "how far back viewers can go", hls.window_seconds)
    add("--hls-ports", _ports, "FIRST-LAST", "UDP ports on loopback for FFmpeg", (hls.first_port, hls.last_port))
    add("--hls-dir", Path, "FOLDER", "also write each stream there, as plain HLS", hls.hls_dir)
    add("--record-dir", Path, "FOLDER", "record each stream there", hls.record_dir)
    parser.add_argument("--version", action="version", version=f"trio-sfu {__version__}")
    return parser


def _variable(dest: str) -> str:
    return PREFIX + dest.upper()


def _from_environment(parser: argparse.ArgumentParser, action: argparse.Action, variable: str, text: str) -> object:
    kind = action.type
    convert = kind if callable(kind) else str
    if isinstance(action, argparse.BooleanOptionalAction):
        convert = _switch
    try:
        if action.dest in _SEVERAL:
            return [convert(each) for each in text.replace(",", " ").split()]
        value = convert(text.strip())
    except argparse.ArgumentTypeError as error:
        parser.error(f"{variable}: {error}")
    if action.choices is not None and value not in action.choices:
        parser.error(f"{variable}: {value!r} is none of {', '.join(action.choices)}")
    return value


def _integer(low: int, high: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        if not text.isascii() or not text.isdigit() or len(text) > 12:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")
        if not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low} and {high}")
        return int(text)

    return convert


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds") from None
    if not isfinite(value) or not 0.01 <= value <= 86400:
        raise argparse.ArgumentTypeError(f"{text} is not between 0.01 and 86400 seconds")
    return value


def _consent(text: str) -> float:
    return _between(6.0, 600.0)(text)  # clients ask at least every 6 s (RFC 7675, section 5.1)


def _grace(text: str) -> float:
    try:
        nothing = float(text) == 0
    except ValueError:
        nothing = False
    return 0.0 if nothing else _between(0.01, 3600.0)(text)


def _between(low: float, high: float) -> Callable[[str], float]:
    def convert(text: str) -> float:
        value = _seconds(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g} seconds")
        return value

    return convert


def _switch(text: str) -> bool:
    if text.lower() in ("1", "true", "yes", "on"):
        return True
    if text.lower() in ("0", "false", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither yes nor no")


def _size(text: str) -> tuple[int, int]:
    width, _, height = text.lower().partition("x")
    size = _integer(128, 7680)(width), _integer(128, 4320)(height)
    if size[0] % 2 or size[1] % 2:
        raise argparse.ArgumentTypeError(f"{text}: width and height must be even")
    return size


def _ports(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    ports = _integer(1024, 65535)(first), _integer(1024, 65535)(last)
    if ports[1] - ports[0] < 4:
        raise argparse.ArgumentTypeError(f"{text} is not a range of at least four ports, such as 20000-29999")
    return ports


def _address(text: str) -> str:
    try:
        ip = ip_address(text.strip("[]"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not an IP address") from None
    if ip.is_unspecified or ip.is_multicast:
        raise argparse.ArgumentTypeError(f"{text} is not the address of one machine")
    return str(ip)


def _turn_url(text: str) -> str:
    try:
        return check_turn_url(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _secret(text: str) -> str:
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty")
    return text.strip()


def _host(text: str) -> str:
    try:
        return str(ip_address(text.strip("[]")))
    except ValueError:
        pass
    try:
        # A name, such as localhost: its first address.
        found = socket.getaddrinfo(text, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise argparse.ArgumentTypeError(f"{text!r} is neither an IP address nor a name of one") from None
    return str(min(found, key=lambda entry: entry[0] != socket.AF_INET)[4][0])
