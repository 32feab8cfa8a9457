"""A page's signalling line with somebody in the middle of it, who reads along, adds events, and cuts the line.

Tests of the call page use it for what only happens with bad luck, and for servers newer or older than ours.
"""

import json
import re
from collections.abc import Callable
from typing import Any, Final

from playwright.sync_api import Page, WebSocketRoute

__all__ = ["Line"]

# Engine.IO message, Socket.IO event or ack, the ack's id, the array.
_PACKET: Final = re.compile(r"4([23])(\d*)(\[.*)", re.DOTALL)
_HANDSHAKE: Final = {"sid": "middle", "upgrades": [], "pingInterval": 25000, "pingTimeout": 20000, "maxPayload": 100000}


class Line:
    """To be made before the page is opened (``visit(..., prepare=...)``). It works while Playwright does something.

    With ``token``, this is in between a server that resumes: it keeps the line to the real one when the page's is
    cut, and lends it to the page that comes back with the token. Requests that have a function in ``answers`` are
    answered by it here, with what it makes of the payload.
    """

    def __init__(self, page: Page, *, token: str = "") -> None:
        # Given
        self.token: Final = token
        # Owned
        self.answers: Final[dict[str, Callable[[Any], Any]]] = {}
        self.requests: Final[list[tuple[str, Any]]] = []
        """What the page has asked for: the event's name, and its payload."""
        self.acks: Final[list[tuple[str, Any]]] = []
        """What it was answered: the request's name, and the ack."""
        self._broken = False
        self._asked: Final[dict[str, str]] = {}
        self._page_side: WebSocketRoute | None = None
        self._server_side: WebSocketRoute | None = None
        self.user_id = ""
        self.events_since_token = 0
        """Events that the page has been sent since the answer with the token; ``audioLevels`` are not counted."""
        page.route_web_socket(re.compile(r"/ws/"), self._opened)

    def asked(self, name: str) -> list[Any]:
        """The payloads of the requests of that name."""
        return [payload for each, payload in self.requests if each == name]

    def answered(self, name: str) -> list[Any]:
        """The acks of the requests of that name."""
        return [ack for each, ack in self.acks if each == name]

    def tell(self, name: str, payload: Any) -> None:
        """Send the page an event as if the server had."""
        assert self._page_side is not None
        self._page_side.send("42" + json.dumps([name, payload]))

    def cut(self, *, for_long: bool = False) -> None:
        """The page's connection breaks; with a token, the server's is kept. ``for_long``: until :meth:`mend`."""
        self._broken = for_long
        assert self._page_side is not None
        assert self._server_side is not None
        page_side, self._page_side = self._page_side, None
        if not self.token:
            self._server_side.close(code=1000)  # a goodbye: the server has nothing to keep
        page_side.close(code=3001, reason="cut")

    def mend(self) -> None:
        """The page can connect again."""
        self._broken = False

    def _opened(self, page_side: WebSocketRoute) -> None:
        if self._broken:
            page_side.close(code=3001, reason="cut")
            return
        if self.token and self._server_side is not None:
            self._page_side = page_side
            page_side.on_message(self._resuming)
            page_side.send("0" + json.dumps(_HANDSHAKE))
            return
        self._page_side = page_side
        self._server_side = page_side.connect_to_server()
        if self.token:
            page_side.on_close(lambda code, reason: None)  # or the server's side would be closed with it
        page_side.on_message(self._from_page)
        self._server_side.on_message(self._from_server)

    def _resuming(self, message: str | bytes) -> None:
        """What a page says on a new connection, until it has come back to its old one."""
        text = str(message)
        assert self._page_side is not None
        if text.startswith("40"):
            self._page_side.send('40{"sid":"another"}')
        elif '"resume"' in text:
            packet = _PACKET.fullmatch(text)
            assert packet is not None
            name, payload = json.loads(packet[3])
            self.requests.append((name, payload))
            room_ids = [
                ack["roomId"] for each, ack in self.acks if each in {"createRoom", "joinRoom"} and "roomId" in ack
            ]
            resumed = {"userId": self.user_id, "roomIds": room_ids, "resumeToken": self.token, "resumeSeconds": 30}
            self._page_side.send(f"43{packet[2]}" + json.dumps([resumed]))
        else:
            self._from_page(message)

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
        text = str(message)
        if text.startswith("40{"):
            self.user_id = json.loads(text[2:])["sid"]
        packet = _PACKET.fullmatch(text)
        if packet is not None and packet[1] == "3":
            name = self._asked.get(packet[2], "")
            (ack,) = json.loads(packet[3])
            if self.token and name in {"createRoom", "joinRoom"} and "error" not in ack:
                ack |= {"resumeToken": self.token, "resumeSeconds": 30}
                message = f"43{packet[2]}" + json.dumps([ack])
            self.acks.append((name, ack))
            if "resumeToken" in ack:
                self.events_since_token = 0
        elif packet is not None and self._page_side is not None and '"audioLevels"' not in text:
            self.events_since_token += 1
        if self._page_side is not None:
            self._page_side.send(message)
        elif text == "2":
            assert self._server_side is not None
            self._server_side.send("3")
