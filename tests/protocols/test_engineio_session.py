"""The Engine.IO session machine with explicit time: deadlines, bounds, and what no socket test reaches."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sfu.protocols.engineio import EngineConfig, EngineSession, Message, OversizedMessage

CONFIG = EngineConfig()


def polling(config: EngineConfig = CONFIG) -> EngineSession:
    session = EngineSession("sid", config, transport="polling", now=0.0)
    assert poll(session).startswith("0{")
    return session


def websocket(config: EngineConfig = CONFIG) -> EngineSession:
    session = EngineSession("sid", config, transport="websocket", now=0.0)
    assert session.attach("ws", 0.0)
    assert str(session.next_frame("ws")).startswith("0{")
    return session


def poll(session: EngineSession) -> str:
    assert session.begin_poll()
    assert session.poll_ready
    return session.take_poll().decode()


def test_handshake() -> None:
    config = EngineConfig(ping_interval=0.3, ping_timeout=0.2, max_payload=1000)
    session = EngineSession("abc", config, transport="polling", now=0.0)
    assert json.loads(poll(session)[1:]) == {
        "sid": "abc",
        "upgrades": ["websocket"],
        "pingInterval": 300,
        "pingTimeout": 200,
        "maxPayload": 1000,
    }


def test_ping_and_pong() -> None:
    session = websocket()
    for start in (0.0, 26.0, 52.0):
        assert session.get_timer() == start + 25.0
        session.handle_timer(start + 24.9)
        assert session.next_frame("ws") is None
        session.handle_timer(start + 25.0)
        assert session.next_frame("ws") == "2"
        assert session.get_timer() == start + 45.0
        session.receive_frame("ws", "3", start + 26.0)
    assert session.state == "open"


def test_ping_timeout() -> None:
    session = websocket()
    session.handle_timer(25.0)
    session.handle_timer(44.9)
    assert session.state == "open"
    session.handle_timer(45.0)
    assert (session.state, session.close_reason, session.get_timer()) == ("closed", "ping timeout", None)


def test_a_server_that_is_late_does_not_blame_the_client() -> None:
    session = websocket()
    session.handle_timer(1000.0)
    assert session.state == "open"
    assert session.get_timer() == pytest.approx(1018.0)


def test_a_pong_nobody_asked_for_changes_nothing() -> None:
    session = websocket()
    session.receive_frame("ws", "3", 10.0)
    assert session.get_timer() == 25.0


def test_messages_behind_a_close_are_dropped() -> None:
    session = polling()
    assert session.receive_payload(b"4one\x1e1\x1e4two", 1.0) == [Message("one")]
    assert (session.state, session.close_reason) == ("closed", "transport close")
    assert session.receive_payload(b"4three", 1.0) is None
    assert not session.begin_poll()


def test_messages_before_a_bad_packet_are_dropped_too() -> None:
    session = polling()
    assert session.receive_payload(b"4one\x1ez", 1.0) is None
    assert session.close_reason == "parse error"


@pytest.mark.parametrize("data", ["x" * 10, b"x" * 10])
def test_the_queue_is_bounded_in_packets_and_bytes(data: str | bytes) -> None:
    session = polling(EngineConfig(max_queued_packets=3))
    for _ in range(3):
        session.send(data)
    assert session.state == "open"
    session.send(data)
    assert (session.state, session.close_reason) == ("closed", "slow client")
    session = polling(EngineConfig(max_queued_bytes=33))
    for _ in range(3):
        session.send(data)
    assert session.state == "open"
    poll(session)
    for _ in range(3):
        session.send(data)
    session.send("")
    assert session.close_reason == "slow client"


def test_closing_by_polling() -> None:
    session = polling()
    session.send("last")
    session.close("bye", 10.0)
    session.send("too late")
    assert session.receive_payload(b"4ignored", 10.0) == []
    assert (session.state, session.get_timer()) == ("closing", 15.0)
    assert poll(session) == "4last"
    session.poll_answered()
    assert session.state == "closing"
    assert poll(session) == "1"
    session.poll_answered()
    assert (session.state, session.close_reason) == ("closed", "bye")


def test_closing_ends_in_time_or_with_the_connection() -> None:
    session = polling()
    session.close("bye", 10.0)
    session.handle_timer(15.0)
    assert (session.state, session.close_reason) == ("closed", "bye")
    session = websocket()
    session.send("last")
    session.close("bye", 10.0)
    session.detach("ws", "transport close")
    assert (session.state, session.close_reason) == ("closed", "bye")


def test_closing_by_websocket() -> None:
    session = websocket()
    session.send("last")
    session.close("bye", 10.0)
    assert session.next_frame("ws") == "4last"
    assert (session.state, session.holds("ws")) == ("closing", True)
    assert session.next_frame("ws") is None
    assert (session.state, session.holds("ws")) == ("closed", False)


def test_a_poll_that_could_not_be_answered_ends_the_session() -> None:
    session = polling()
    session.send("lost")
    poll(session)
    session.poll_lost("transport error")
    assert (session.state, session.close_reason) == ("closed", "transport error")


def test_upgrade() -> None:
    session = polling()
    assert session.begin_poll()
    assert not session.poll_ready
    assert session.attach("ws", 1.0)
    assert not session.attach("second", 1.0)
    assert session.get_timer() == 11.0
    session.receive_frame("ws", "2probe", 1.0)
    assert session.next_frame("ws") == "3probe"
    assert session.poll_ready
    assert session.take_poll() == b"6"
    session.send("by either")
    assert session.next_frame("ws") is None
    session.receive_frame("ws", "5", 2.0)
    assert (session.transport, session.get_timer()) == ("websocket", 25.0)
    assert session.next_frame("ws") == "4by either"
    assert not session.begin_poll()
    assert session.receive_payload(b"4x", 2.0) is None
    assert not session.attach("third", 2.0)
    assert session.state == "open"
    session.detach("second", "transport close")
    assert session.state == "open"
    session.detach("ws", "transport close")
    assert session.state == "closed"


def test_a_poll_that_waits_when_the_upgrade_is_done_is_let_go() -> None:
    session = polling()
    session.attach("ws", 1.0)
    session.receive_frame("ws", "2probe", 1.0)
    assert session.begin_poll()
    session.receive_frame("ws", "5", 1.0)
    session.send("for the websocket")
    assert session.poll_ready
    assert session.take_poll() == b"6"
    assert [session.next_frame("ws") for _ in range(3)] == ["3probe", "4for the websocket", None]


def test_a_probe_that_ends_leaves_polling_alone() -> None:
    session = polling()
    session.attach("ws", 1.0)
    session.receive_frame("ws", "2probe", 1.0)
    session.detach("ws", "transport close")
    session.send("still here")
    assert poll(session) == "4still here"
    session.attach("ws2", 2.0)
    session.handle_timer(12.0)
    assert not session.holds("ws2")
    assert session.state == "open"


def test_frames_of_a_websocket_that_was_given_back_are_not_heard() -> None:
    session = websocket()
    assert session.receive_frame("other", "4x", 1.0) == []
    assert session.next_frame("other") is None
    assert session.next_frame(None) is None
    session.abort("forced close")
    assert session.receive_frame("ws", "4x", 1.0) == []


@pytest.mark.parametrize(
    ("frame", "fits"),
    [("4" + "x" * 99, True), ("4" + "x" * 100, False), ("4" + "ä" * 49, True), ("4" + "ä" * 50, False)],
)
def test_max_payload_counts_bytes(frame: str, fits: bool) -> None:
    session = websocket(EngineConfig(max_payload=100))
    expected = Message(frame[1:]) if fits else OversizedMessage(frame[1:])
    assert session.receive_frame("ws", frame, 1.0) == [expected]


actions = st.one_of(
    st.tuples(st.sampled_from(["poll", "take", "answered", "lost", "close", "abort", "timer"]), st.just("")),
    st.tuples(st.sampled_from(["attach", "detach", "next"]), st.sampled_from("ab")),
    st.tuples(
        st.sampled_from(["frame a", "frame b", "post", "send"]),
        st.sampled_from(["4x", "2probe", "5", "3", "1", "6", "z", "", "4x\x1e4y"]),
    ),
)


@settings(max_examples=200)
@given(st.sampled_from(["polling", "websocket"]), st.lists(actions, max_size=30))
def test_fuzz_actions(transport: str, steps: list[tuple[str, str]]) -> None:
    """Whatever comes in whatever order: nothing raises, at most one WebSocket is held for each purpose, a
    closed session holds none, sends nothing and has no timer, and its reason never changes.
    """
    session = EngineSession(
        "sid",
        EngineConfig(max_queued_packets=5),
        transport="polling" if transport == "polling" else "websocket",
        now=0.0,
    )
    now, waiting, reason = 0.0, False, None
    for action, value in steps:
        now += 3.0
        match action.split():
            case ["poll"]:
                waiting = session.begin_poll() or (waiting and session.state != "closed")
            case ["take"] if waiting and session.poll_ready:
                assert session.take_poll()
                waiting = False
            case ["answered"]:
                session.poll_answered()
            case ["lost"] if waiting:
                session.poll_lost("transport close")
            case ["close"]:
                session.close("bye", now)
            case ["abort"]:
                session.abort("forced close")
            case ["timer"]:
                session.handle_timer(now)
            case ["attach"]:
                session.attach(value, now)
            case ["detach"]:
                session.detach(value, "transport close")
            case ["next"]:
                frame = session.next_frame(value)
                assert frame is None or session.holds(value) or session.state == "closed"
            case ["frame", token]:
                session.receive_frame(token, value, now)
            case ["post"]:
                session.receive_payload(value.encode(), now)
            case ["send"]:
                session.send(value)
        if session.state == "closed":
            reason = reason or session.close_reason
            assert session.close_reason == reason
            assert session.get_timer() is None
            assert not session.holds("a")
            assert not session.holds("b")
            assert session.next_frame("a") is None
        else:
            assert session.get_timer() is not None
