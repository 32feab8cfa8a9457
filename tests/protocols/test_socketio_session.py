"""The Socket.IO session machine with explicit time."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.protocols.socketio import (
    AckReceived,
    Connected,
    Disconnected,
    EventReceived,
    EventRefused,
    SocketIOSession,
)


def open_session() -> SocketIOSession:
    numbers = iter(range(1000))
    return SocketIOSession(
        namespaces=["/", "/custom"],
        connect_timeout=45.0,
        make_sid=lambda: f"sid{next(numbers)}",
        now=0.0,
    )


def connected() -> SocketIOSession:
    session = open_session()
    session.receive("0", 1.0)
    session.frames_to_send()
    return session


def test_connect() -> None:
    session = open_session()
    assert session.receive('0{"token":1}', 1.0) == [Connected("/", "sid0", {"token": 1})]
    assert session.receive("0/custom,", 1.0) == [Connected("/custom", "sid1", None)]
    assert session.frames_to_send() == ['0{"sid":"sid0"}', '0/custom,{"sid":"sid1"}']
    assert session.frames_to_send() == []
    assert (session.sid("/"), session.sid("/x")) == ("sid0", None)
    assert session.get_timer() is None


def test_an_unknown_namespace_does_not_stop_the_clock() -> None:
    session = open_session()
    assert session.receive("0/random", 1.0) == []
    assert session.frames_to_send() == ['4/random,{"message":"Invalid namespace"}']
    assert session.get_timer() == 45.0
    session.handle_timer(44.9)
    assert session.failed is None
    session.handle_timer(45.0)
    assert session.failed == "connect timeout"
    assert session.receive("0", 46.0) == []


def test_events_and_acknowledgements() -> None:
    session = connected()
    assert session.receive('2["a",1]', 1.0) == [EventReceived("/", "a", [1], None)]
    assert session.receive('27["a"]', 1.0) == [EventReceived("/", "a", [], 7)]
    assert session.receive("37[2]", 1.0) == [AckReceived("/", 7, [2])]
    assert session.receive('51-["a",{"_placeholder":true,"num":0}]', 1.0) == []
    assert session.receive(b"x", 1.0) == [EventReceived("/", "a", [b"x"], None)]
    assert session.event("/", "b", [b"y"], 3) == ['51-3["b",{"_placeholder":true,"num":0}]', b"y"]
    assert session.ack("/", 7, [True]) == ["37[true]"]
    assert session.event("/custom", "b", [], None) == []
    assert session.ack("/custom", 7, []) == []


def test_disconnect() -> None:
    session = connected()
    session.receive("0/custom", 1.0)
    assert session.receive("1", 2.0) == [Disconnected("/", "client namespace disconnect")]
    assert session.get_timer() is None
    assert session.disconnect("/custom") == ["1/custom,"]
    assert session.disconnect("/custom") == []
    session = connected()
    session.receive("1", 2.0)
    assert session.get_timer() == 47.0
    assert session.receive("0", 3.0) == [Connected("/", "sid1", None)]
    assert session.get_timer() is None


@pytest.mark.parametrize(
    "frame", ["0", "abc", "2{}", '2/custom,["x"]', "1/custom,", "3[]", '4{"message":"x"}', b"x", ""]
)
def test_failures(frame: str | bytes) -> None:
    session = connected()
    assert session.receive(frame, 1.0) == []
    assert session.failed == "parse error"
    assert session.receive('2["x"]', 1.0) == []
    assert session.get_timer() is None


@pytest.mark.parametrize("frame", ['2["x"]', "1", "31[]", b"x"])
def test_nothing_goes_before_connect(frame: str | bytes) -> None:
    session = open_session()
    session.receive(frame, 1.0)
    assert session.failed == "parse error"


def test_refused_events() -> None:
    session = connected()
    deep = "[" * 100 + "]" * 100
    assert session.receive(f'25["x",{deep}]', 1.0) == [EventRefused("/", 5, "too-deep")]
    assert session.receive_oversized('26["x","yyy') == [EventRefused("/", 6, "too-large")]
    assert session.failed is None
    assert session.receive_oversized('2/custom,6["x","yyy') == []
    assert session.failed == "parse error"
    session = connected()
    assert session.receive(f'2/custom,5["x",{deep}]', 1.0) == []
    assert session.failed == "parse error"


@given(
    st.lists(
        st.sampled_from(
            ["0", "0/custom", "0/x", "1", "1/custom,", '2["a"]', '21["a"]', "31[]", '51-["a"]', b"x", "x", "3[]"]
        )
        | st.text(max_size=5),
        max_size=12,
    )
)
def test_fuzz_frames(frames: list[Any]) -> None:
    """Whatever comes: nothing raises, and every socket that connected disconnects at most once."""
    session = open_session()
    inside: set[str] = set()
    for frame in frames:
        for event in session.receive(frame, 1.0):
            if isinstance(event, Connected):
                assert event.namespace not in inside
                inside.add(event.namespace)
            elif isinstance(event, Disconnected):
                inside.remove(event.namespace)
            else:
                assert event.namespace in inside
