"""Calls through a TURN server, coturn, with the credentials that the server makes."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Page

from tests.browser.conftest import new_context
from tests.browser.users import User, connect
from tests.browser.visitor import SMALL_PICTURES, Visitor
from tests.support.server import Server, running_server
from tests.support.turn_server import TurnServer, running_turn_server

SECRET = "what only the two of them know"

# Peer connections are kept, with what their TURN servers said; `policy` is what they are made with.
WATCH = """(() => {
  const Native = RTCPeerConnection;
  window.watched = { connections: [], errors: [], servers: [] };
  window.RTCPeerConnection = class extends Native {
    constructor(configuration) {
      super({ ...configuration, iceTransportPolicy: "relay" });
      watched.connections.push(this);
      watched.servers.push(configuration.iceServers);
      this.addEventListener("icecandidateerror", ({ errorCode, url }) => watched.errors.push({ errorCode, url }));
    }
  };
})();"""

LOCAL_CANDIDATES = """async () => {
  const types = [];
  for (const connection of watched.connections) {
    for (const each of (await connection.getStats()).values()) {
      if (each.type === "local-candidate") types.push(each.candidateType);
    }
  }
  return types;
}"""

SELECTED = """async () => {
  const types = [];
  for (const connection of watched.connections) {
    const stats = await connection.getStats();
    for (const { type, selectedCandidatePairId } of stats.values()) {
      const pair = type === "transport" && stats.get(selectedCandidatePairId);
      if (pair) types.push(stats.get(pair.localCandidateId).candidateType);
    }
  }
  return types;
}"""


@pytest.fixture(scope="module")
def turn() -> Iterator[TurnServer]:
    with running_turn_server(SECRET) as server:
        yield server


@contextmanager
def two_pages(browser: Browser, turn: TurnServer, secret: str) -> Iterator[tuple[Server, list[Page]]]:
    """Pages that may use TURN only, on a server that has ``secret``."""
    with running_server("--turn", turn.url, "--turn-secret", secret) as server:
        contexts = [new_context(browser, server) for _ in range(2)]
        try:
            pages = []
            for context in contexts:
                context.add_init_script(SMALL_PICTURES)
                context.add_init_script(WATCH)
                context.set_default_timeout(20_000)
                pages.append(context.new_page())
            yield server, pages
        finally:
            for context in contexts:
                context.close()
        server.wait_idle()


def test_call_through_turn(browser: Browser, turn: TurnServer) -> None:
    with two_pages(browser, turn, SECRET) as (_, pages):
        users: list[User] = []
        room = None
        for page in pages:
            page.goto("/")
            users.append(connect(page))
            users[-1].call("usePolicy", "relay")
            room = users[-1].join(room)
        for user in users:
            user.call("consumeAll", {"timeoutMs": 20_000})
        for user in users:
            user.call("waitDecoding", {"frames": 15})
            assert user.page.evaluate(SELECTED) == ["relay", "relay"]
            assert set(user.page.evaluate(LOCAL_CANDIDATES)) == {"relay"}
        for user in users:
            user.call("close")


def test_the_pages_use_it(browser: Browser, turn: TurnServer) -> None:
    """The room's own page hands the server's reply on to the browser."""
    with two_pages(browser, turn, SECRET) as (_, pages):
        visitors = [Visitor(page) for page in pages]
        for visitor, name in zip(visitors, ("Ann", "Bob"), strict=True):
            visitor.page.goto("/room/by-turn")
            visitor.join(name)
        ann, bob = visitors
        ann.sees(ann.tile("Bob"))
        bob.sees(bob.tile("Ann"))
        for visitor in visitors:
            assert visitor.page.evaluate(SELECTED) == ["relay", "relay"]
            # One of the connections only finds out what the browser can do.
            told = [servers[0]["urls"] for servers in visitor.page.evaluate("watched.servers") if servers]
            assert told == [[turn.url]] * 2


def test_a_wrong_secret_gives_no_relay(browser: Browser, turn: TurnServer) -> None:
    """The TURN server refuses what it cannot check, and the page has no candidate at all."""
    with two_pages(browser, turn, SECRET + "?") as (_, (page, _other)):
        page.goto("/")
        user = connect(page)
        user.call("usePolicy", "relay")
        user.call("create")
        user.call("loadDevice")
        user.begin("produce", {"kind": "audio", "capture": "tone"})
        page.wait_for_function("() => watched.errors.length > 0")
        assert {each["errorCode"] for each in page.evaluate("watched.errors")} == {401}
        page.wait_for_function("() => watched.connections.some((each) => each.iceGatheringState === 'complete')")
        assert page.evaluate(LOCAL_CANDIDATES) == []
        assert "connected" not in user.call("transportStates")["send"]
        user.call("close")
