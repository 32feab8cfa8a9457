"""A page's signalling line with somebody in the middle of it, who reads along and may change a word.

Tests of the call page use it to see what the page asks for, to send its media by another way, and for servers that
answer as ours does not.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final

from playwright.sync_api import Page, WebSocketRoute

__all__ = ["Line", "Lines"]

# Engine.IO message, Socket.IO event or ack, the ack's id, the array.
_PACKET: Final = re.compile(r"4([23])(\d*)(\[.*)", re.DOTALL)


class Line:
    """To be made before the page is opened (``visit(..., prepare=...)``). It works while Playwright does something.

    Requests that have a function in ``answers`` are answered by it here, with what it makes of the payload. Of the
    server's candidates the page sees only those of ``protocol`` where that is given, with ``media_port``, the way to a
    relay, for their port.
    """

    def __init__(self, page: Page, *, protocol: str = "", media_port: int | None = None) -> None:
        # Given
        self._protocol: Final = "udp" if media_port is not None else protocol
        self._media_port: Final = media_port
        # Owned
        self.answers: Final[dict[str, Callable[[Any], Any]]] = {}
        self.requests: Final[list[tuple[str, Any]]] = []
        """What the page has asked for: the event's name, and its payload."""
        self.acks: Final[list[tuple[str, Any]]] = []
        """What it was answered: the request's name, and the ack."""
        self.events: Final[list[tuple[str, Any]]] = []
        """What it was told: the event's name, and its payload."""
        self._asked: Final[dict[str, str]] = {}
        self._page_side: WebSocketRoute | None = None
        self._server_side: WebSocketRoute | None = None
        page.route_web_socket(re.compile(r"/ws/"), self._opened)

    def asked(self, name: str) -> list[Any]:
        """The payloads of the requests of that name."""
        return [payload for each, payload in self.requests if each == name]

    def answered(self, name: str) -> list[Any]:
        """The acks of the requests of that name."""
        return [ack for each, ack in self.acks if each == name]

    def told(self, name: str) -> list[Any]:
        """The payloads of the server's events of that name."""
        return [payload for each, payload in self.events if each == name]

    def tell(self, name: str, payload: Any) -> None:
        """Send the page an event as if the server had."""
        assert self._page_side is not None
        self._page_side.send("42" + json.dumps([name, payload]))

    def _opened(self, page_side: WebSocketRoute) -> None:
        self._page_side = page_side
        self._server_side = page_side.connect_to_server()
        self._asked.clear()
        page_side.on_message(self._from_page)
        self._server_side.on_message(self._from_server)

    def _from_page(self, message: str | bytes) -> None:
        packet = _PACKET.fullmatch(message) if isinstance(message, str) else None
        if packet is not None and packet[1] == "2":
            name, payload = json.loads(packet[3])
            self.requests.append((name, payload))
            self._asked[packet[2]] = name
            if name in self.answers:
                assert self._page_side is not None
                self._page_side.send(f"43{packet[2]}" + json.dumps([self.answers[name](payload)]))
                return
        assert self._server_side is not None
        self._server_side.send(message)

    def _from_server(self, message: str | bytes) -> None:
        packet = _PACKET.fullmatch(message) if isinstance(message, str) else None
        if packet is not None and packet[1] == "3":
            (ack,) = json.loads(packet[3])
            if self._protocol and "iceCandidates" in ack:
                ack["iceCandidates"] = [
                    {**each, "port": self._media_port or each["port"]}
                    for each in ack["iceCandidates"]
                    if each["protocol"] == self._protocol
                ]
                message = f"43{packet[2]}" + json.dumps([ack])
            self.acks.append((self._asked.get(packet[2], ""), ack))
        elif packet is not None:
            name, *payload = json.loads(packet[3])
            self.events.append((name, payload[0] if payload else None))
        assert self._page_side is not None
        self._page_side.send(message)


class Lines:
    """The lines of the pages that are opened with ``prepare=lines.add``, in that order."""

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._lines: list[Line] = []

    def add(self, page: Page) -> None:
        self._lines.append(Line(page, **self._options))

    def __getitem__(self, index: int) -> Line:
        return self._lines[index]
