"""The call page holds on: to another network, through a way that is lost, and without its line to the server."""

from urllib.parse import urlsplit

import pytest
from playwright.sync_api import expect

from tests.browser.line import Lines
from tests.browser.test_pages import room
from tests.browser.visitor import KEEP_CONNECTIONS, SMALL_PICTURES, Visit
from tests.support.relay import running_relay
from tests.support.server import Server, running_server
from tests.support.tcp_proxy import TcpProxy, running_tcp_proxy

__all__ = ["room"]  # the fixture

RESUMED = "trio_sfu_resumption_resumed_total"

TRANSPORTS = ("createProducerTransport", "createConsumerTransport")

FRAGMENTS = """() => window.connections
  .filter(({ connectionState }) => connectionState === "connected")
  .map(({ localDescription }) => /a=ice-ufrag:(\\S+)/.exec(localDescription.sdp)[1])"""

RESTARTED = f"""(before) => {{
  const now = ({FRAGMENTS})();
  return now.length === before.length && now.every((each) => !before.includes(each));
}}"""


def port_of(server: Server) -> int:
    port = urlsplit(server.url).port
    assert port is not None
    return port


def at(proxy: TcpProxy, path: str) -> str:
    return f"http://127.0.0.1:{proxy.port}{path}"


def test_another_network_makes_the_page_restart_ice(visit: Visit, room: str) -> None:
    """Once on both transports, while sound and picture go on."""
    lines = Lines()
    ann = visit(room, script=SMALL_PICTURES + KEEP_CONNECTIONS, prepare=lines.add)
    ann.join("Ann")
    bob = visit(room)
    bob.join("Bob")
    ann.sees(ann.tile("Bob"))
    line = lines[0]
    before = ann.page.evaluate(FRAGMENTS)
    assert len(before) == 2
    ann.page.evaluate("() => dispatchEvent(new Event('online'))")
    ann.page.wait_for_function(RESTARTED, arg=before)
    asked = [each["transportId"] for each in line.asked("restartIce")]
    assert sorted(asked) == sorted(each["id"] for name in TRANSPORTS for each in line.answered(name))
    ann.sees(ann.tile("Bob"))
    bob.sees(bob.tile("Ann"))
    ann.is_in_state("connected")
    for name in TRANSPORTS:
        assert len(line.asked(name)) == 1


@pytest.mark.timeout(120)
def test_what_no_restart_repairs_is_made_anew(visit: Visit, room: str, server: Server) -> None:
    (port,) = server.media_ports
    with running_relay(("127.0.0.1", port)) as relay:
        lines = Lines(media_port=relay.port)
        ann = visit(room, prepare=lines.add)
        ann.join("Ann")
        bob = visit(room)
        bob.join("Bob")
        ann.sees(ann.tile("Bob"))
        line = lines[0]
        relay.cut()
        ann.is_in_state("interrupted")
        ann.reads("state", "interrupted")
        ann.waits_for(lambda: len(line.asked("restartIce")) == 6, "three restarts of both")
        firsts = [line.answered(name)[0]["id"] for name in TRANSPORTS]
        asked = [each["transportId"] for each in line.asked("restartIce")]
        assert sorted(asked) == sorted(firsts * 3)
        ann.waits_for(lambda: all(len(line.answered(name)) == 2 for name in TRANSPORTS), "other transports")
        relay.heal()
        ann.is_in_state("connected")
        ann.sees(ann.tile("Bob"))
        bob.sees(bob.tile("Ann"))
        assert len(line.asked("restartIce")) == 6
        assert len(line.asked("joinRoom")) == 1


def test_call_goes_on_where_the_server_restarts_no_ice(visit: Visit, room: str) -> None:
    lines = Lines()
    ann, bob = visit(room, prepare=lines.add), visit(room)
    ann.join("Ann")
    bob.join("Bob")
    ann.sees(ann.tile("Bob"))
    line = lines[0]
    refusals: list[str] = []

    def refuse(payload: dict[str, str]) -> dict[str, str]:
        refusals.append(payload["transportId"])
        return {"error": "The server knows no such event", "code": "unknown-event"}

    line.answers["restartIce"] = refuse
    for _ in range(2):
        ann.page.evaluate("() => dispatchEvent(new Event('online'))")
        ann.waits_for(lambda: refusals, "a refusal")
        ann.sees(ann.tile("Bob"))
    assert len(refusals) <= 2  # what it does not know it is not asked again
    bob.sees(bob.tile("Ann"))
    ann.is_in_state("connected")
    for name in TRANSPORTS:
        assert len(line.asked(name)) == 1


def test_call_goes_on_while_its_line_is_resumed(visit: Visit, room: str, server: Server) -> None:
    """Nothing is made anew, what was clicked meanwhile counts, and what happened meanwhile is made up for."""
    with running_tcp_proxy(port_of(server)) as proxy:
        ann = visit(at(proxy, room), script=SMALL_PICTURES + KEEP_CONNECTIONS)
        ann.join("Ann")
        bob = visit(room)
        bob.join("Bob")
        ann.sees(ann.tile("Bob"))
        bob.sees(bob.tile("Ann"))
        before, resumed = ann.page.evaluate(FRAGMENTS), server.metrics()[RESUMED]
        assert len(before) == len(TRANSPORTS)
        proxy.cut()
        ann.is_in_state("resuming")
        ann.reads("state", "line to the server is lost")
        ann.sees(ann.tile("Bob"))
        ann.toggle("mute", False)
        bob.toggle("camera", False)
        ann.picture("resuming")
        expect(bob.get("tile")).to_have_count(2)
        proxy.heal()
        ann.is_in_state("connected")
        assert server.metrics()[RESUMED] == resumed + 1
        expect(bob.tile("Ann")).to_have_attribute("data-muted", "true")
        expect(ann.tile("Bob")).to_have_attribute("data-video", "off")
        bob.toggle("camera", True)
        ann.sees(ann.tile("Bob"))
        bob.sees(bob.tile("Ann"))
        ann.reads("state", "with one other")
        assert ann.page.evaluate(FRAGMENTS) == before
        ann.get("leave").click()
        ann.is_in_state("left")


@pytest.mark.parametrize("grace", ["0", "1"])
def test_call_is_entered_anew_where_it_is_not_resumed(visit: Visit, room: str, grace: str) -> None:
    """The server resumes nothing, or the line was lost for too long."""
    with running_server("--resume-grace", grace) as server, running_tcp_proxy(port_of(server)) as proxy:
        ann, bob = visit(at(proxy, room)), visit(server.url + room)
        ann.join("Ann")
        bob.join("Bob")
        ann.sees(ann.tile("Bob"))
        proxy.cut()
        ann.is_in_state("reconnecting")
        expect(bob.get("tile")).to_have_count(1)
        proxy.heal()
        ann.is_in_state("connected")
        ann.sees(ann.tile("Bob"))
        bob.sees(bob.tile("Ann"))
        expect(bob.get("tile")).to_have_count(2)
        assert server.metrics()[RESUMED] == 0
        for visitor in (ann, bob):
            visitor.page.context.close()
        server.wait_idle()
