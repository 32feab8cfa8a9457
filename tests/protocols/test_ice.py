"""The ICE-lite agent against requests that aioice builds; every time is given."""

import struct
from typing import Any

import pytest
from aioice import stun as aioice_stun
from hypothesis import given, settings
from hypothesis import strategies as st

from trio_sfu.protocols.ice import (
    IceLite,
    IceResult,
    IceState,
    generate_pwd,
    generate_ufrag,
    peek_local_ufrag,
    unauthenticated_error,
)
from trio_sfu.wire import stun
from trio_sfu.wire.errors import BadPacket

UFRAG = "localufrag"
PWD = "a-local-password-of-32-letters--"
HOST = "192.0.2.7"
Request = aioice_stun.Message


def new_agent(max_paths: int = 8) -> IceLite[str]:
    return IceLite(local_ufrag=UFRAG, local_pwd=PWD, max_paths=max_paths)


def request(
    *,
    ufrag: str = UFRAG,
    pwd: str | None = PWD,
    username: str | None = "",
    use_candidate: bool = False,
    nomination: int | None = None,
    extra: bytes = b"",
    **attributes: Any,
) -> bytes:
    """A check as a full agent sends it. ``extra``: raw attributes, put before MESSAGE-INTEGRITY."""
    named: dict[str, Any] = {name.replace("_", "-").upper(): value for name, value in attributes.items()}
    if username is not None:
        named["USERNAME"] = username or f"{ufrag}:remote"
    named.setdefault("PRIORITY", 1)
    if "ICE-CONTROLLED" not in named:
        named["ICE-CONTROLLING"] = 42
    if use_candidate:
        named["USE-CANDIDATE"] = None
    message = Request(aioice_stun.Method.BINDING, aioice_stun.Class.REQUEST, attributes=named)
    if nomination is not None:
        extra += struct.pack("!HHI", 0x0030, 4, nomination)
    body = bytes(message)[20:] + extra
    head = struct.pack("!HHI", 0x0001, len(body), 0x2112A442) + message.transaction_id
    if pwd is None:
        return head + body
    signature = aioice_stun.message_integrity(head + body, pwd.encode())
    body += struct.pack("!HH", 0x0008, 20) + signature
    head = struct.pack("!HHI", 0x0001, len(body) + 8, 0x2112A442) + message.transaction_id
    checksum = aioice_stun.message_fingerprint(head + body)
    return head + body + struct.pack("!HHI", 0x8028, 4, checksum)


def check(agent: IceLite[str], path: str, now: float, **options: Any) -> IceResult[str]:
    return agent.receive_stun(request(**options), path, HOST, 5000, now)


def state_of(agent: IceLite[str]) -> IceState:
    """The state, without the type checker concluding from one assertion that the next cannot hold."""
    return agent.state


def reply_of(result: IceResult[str]) -> stun.StunMessage:
    assert result.reply is not None
    return stun.parse_message(result.reply)


def test_first_request_connects_and_selects() -> None:
    agent = new_agent()
    assert state_of(agent) == "new"
    assert agent.selected is None
    assert agent.get_timer() is None
    assert not agent.is_authenticated("p")

    data = request()
    result = agent.receive_stun(memoryview(data), "p", HOST, 5000, 1.0)

    assert result.selected_changed
    assert result.added
    assert result.evicted == ()
    reply = reply_of(result)
    assert reply.message_class == "success"
    assert reply.transaction_id == data[8:20]
    assert reply.xor_mapped_address == (HOST, 5000)
    assert reply.verify(PWD.encode())
    assert reply.has_fingerprint
    assert state_of(agent) == "connected"
    assert agent.selected == "p"
    assert agent.is_authenticated("p")
    assert agent.paths() == ("p",)

    again = check(agent, "p", 2.0)
    assert not again.selected_changed
    assert not again.added


def test_mapped_address_is_unmapped() -> None:
    result = new_agent().receive_stun(request(), "p", "::ffff:192.0.2.7", 5000, 0.0)
    assert reply_of(result).xor_mapped_address == ("192.0.2.7", 5000)


def test_ipv6() -> None:
    result = new_agent().receive_stun(request(), "p", "2001:db8::7", 5000, 0.0)
    assert reply_of(result).xor_mapped_address == ("2001:db8::7", 5000)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"pwd": None}, 400),
        ({"username": None}, 400),
        ({"username": None, "pwd": None}, 400),
        ({"ufrag": "somebodyelse"}, 401),
        ({"username": UFRAG}, 401),  # no colon
        ({"username": f"remote:{UFRAG}"}, 401),
        ({"username": ":"}, 401),
        ({"pwd": "another-password-of-32-letters--"}, 401),
        ({"pwd": PWD[:-1]}, 401),
    ],
)
def test_unauthenticated_request_gets_an_unsigned_error_and_costs_nothing(options: dict[str, Any], code: int) -> None:
    agent = new_agent()
    for number in range(20):
        result = check(agent, f"stranger {number}", float(number), use_candidate=True, **options)
        reply = reply_of(result)
        assert reply.message_class == "error"
        assert reply.error_code == code
        assert not reply.has_integrity
        assert not result.selected_changed
        assert not result.added
        assert result.evicted == ()
    assert agent.rejected_requests == 20
    assert state_of(agent) == "new"
    assert agent.paths() == ()
    assert agent.selected is None
    assert agent.get_timer() is None


def test_stranger_neither_evicts_nor_renews_consent() -> None:
    agent = new_agent(max_paths=2)
    check(agent, "a", 0.0)
    check(agent, "b", 1.0)
    check(agent, "stranger", 20.0, pwd="x" * 32)
    check(agent, "a", 20.0, pwd="x" * 32, use_candidate=True)
    assert agent.paths() == ("a", "b")
    assert agent.get_timer() == 31.0


def test_controlled_peer_gets_role_conflict() -> None:
    agent = new_agent()
    result = check(agent, "p", 0.0, ice_controlled=1)
    reply = reply_of(result)
    assert reply.error_code == 487
    assert reply.verify(PWD.encode())
    assert state_of(agent) == "new"
    assert not agent.is_authenticated("p")
    assert check(agent, "p", 0.1).selected_changed


def test_unknown_required_attribute_is_named_in_a_420() -> None:
    agent = new_agent()
    result = check(agent, "p", 0.0, extra=bytes.fromhex("7f0100040000002a"))
    reply = reply_of(result)
    assert reply.error_code == 420
    assert reply.verify(PWD.encode())
    assert result.reply is not None
    assert bytes.fromhex("000a00027f01") in result.reply
    assert state_of(agent) == "new"


def test_unknown_optional_attributes_are_ignored() -> None:
    agent = new_agent()
    goog_network_info = bytes.fromhex("c05700040001000a")
    goog_misc_info = bytes.fromhex("c0590004 00000001")
    result = check(agent, "p", 0.0, extra=goog_network_info + goog_misc_info)
    assert reply_of(result).message_class == "success"


def test_responses_and_indications_are_ignored() -> None:
    agent = new_agent()
    response = stun.success_response(bytes(12), HOST, 1, PWD.encode())
    indication = struct.pack("!HHI", 0x0011, 0, 0x2112A442) + bytes(12)
    for data in (response, indication, stun.error_response(bytes(12), 400)):
        assert agent.receive_stun(data, "p", HOST, 1, 0.0) == IceResult()
    assert state_of(agent) == "new"


def test_only_bad_packet_comes_out() -> None:
    agent = new_agent()
    for data in (b"", bytes(19), bytes(20), b"\x80" * 40, request()[:-4]):
        with pytest.raises(BadPacket):
            agent.receive_stun(data, "p", HOST, 1, 0.0)


def test_use_candidate_selects() -> None:
    agent = new_agent()
    check(agent, "a", 0.0)
    assert not check(agent, "b", 0.1).selected_changed
    assert agent.selected == "a"
    assert check(agent, "b", 0.2, use_candidate=True).selected_changed
    assert agent.selected == "b"
    assert not check(agent, "b", 0.3, use_candidate=True).selected_changed
    assert not check(agent, "a", 0.4).selected_changed
    assert agent.selected == "b"


def test_greatest_nomination_selects_whatever_the_order() -> None:
    agent = new_agent()
    check(agent, "a", 0.0, nomination=1)
    assert check(agent, "b", 0.1, nomination=3).selected_changed
    assert not check(agent, "a", 0.2, nomination=2).selected_changed  # late
    assert not check(agent, "a", 0.3, nomination=3).selected_changed
    assert agent.selected == "b"
    assert check(agent, "a", 0.4, nomination=4).selected_changed
    assert agent.selected == "a"


def test_the_path_heard_least_recently_makes_room_but_never_the_selected_one() -> None:
    agent = new_agent()
    for number in range(8):
        assert check(agent, f"path {number}", float(number)).evicted == ()
    check(agent, "path 1", 8.0)
    assert agent.selected == "path 0"

    result = check(agent, "path 8", 9.0)
    assert result.added
    assert result.evicted == ("path 2",)
    assert not agent.is_authenticated("path 2")
    assert agent.is_authenticated("path 0")
    assert agent.is_authenticated("path 1")
    assert len(agent.paths()) == 8

    result = check(agent, "path 9", 10.0, use_candidate=True)
    assert result.evicted == ("path 3",)
    assert agent.selected == "path 9"
    # Now the first one is like any other.
    assert check(agent, "path 10", 11.0).evicted == ("path 0",)


def test_a_single_path_moves() -> None:
    agent = new_agent(max_paths=1)
    check(agent, "a", 0.0)
    result = check(agent, "b", 1.0)
    assert result.evicted == ("a",)
    assert result.selected_changed
    assert agent.selected == "b"


def test_consent_expires_thirty_seconds_after_the_last_authenticated_request() -> None:
    agent = new_agent()
    check(agent, "a", 0.0)
    assert agent.get_timer() == 30.0
    check(agent, "b", 10.0)
    assert agent.get_timer() == 40.0
    assert not agent.handle_timer(39.9)
    assert state_of(agent) == "connected"
    assert agent.handle_timer(40.0)
    assert state_of(agent) == "lost"
    assert agent.selected is None
    assert agent.paths() == ()
    assert not agent.is_authenticated("a")
    assert agent.get_timer() is None
    assert not agent.handle_timer(50.0)


def test_a_request_after_the_loss_connects_again() -> None:
    agent = new_agent()
    check(agent, "a", 0.0)
    assert agent.handle_timer(30.0)
    result = check(agent, "b", 31.0)
    assert result.selected_changed
    assert state_of(agent) == "connected"
    assert agent.get_timer() == 61.0


def test_selected_path_without_consent_gives_way_to_one_that_has_it() -> None:
    agent = new_agent()
    check(agent, "a", 0.0, use_candidate=True)
    assert not check(agent, "b", 15.0).selected_changed
    assert not check(agent, "b", 29.9).selected_changed
    assert check(agent, "b", 30.0).selected_changed
    assert agent.selected == "b"


def test_old_credentials_stay_valid_through_a_restart() -> None:
    agent = new_agent()
    new_ufrag, new_pwd = generate_ufrag(), generate_pwd()
    check(agent, "a", 0.0)
    agent.restart(new_ufrag, new_pwd)
    assert (agent.local_ufrag, agent.local_pwd) == (new_ufrag, new_pwd)
    assert agent.local_ufrags == (new_ufrag, UFRAG)
    assert state_of(agent) == "connected"
    assert agent.selected == "a"

    old = check(agent, "a", 1.0)
    assert reply_of(old).verify(PWD.encode())
    new = check(agent, "b", 2.0, ufrag=new_ufrag, pwd=new_pwd, use_candidate=True)
    assert reply_of(new).verify(new_pwd.encode())
    assert agent.selected == "b"
    assert new.retired
    # With that the old ones have ended; the path they authenticated has not.
    assert list(agent.local_ufrags) == [new_ufrag]
    assert reply_of(check(agent, "a", 3.0, use_candidate=True)).error_code == 401
    assert agent.paths() == ("a", "b")
    # The passwords are not mixed up.
    assert reply_of(check(agent, "c", 4.0, ufrag=new_ufrag)).error_code == 401
    assert reply_of(check(agent, "c", 4.0, pwd=new_pwd)).error_code == 401


def test_old_credentials_end_when_the_new_ones_choose_the_same_path() -> None:
    agent = new_agent()
    new_ufrag, new_pwd = generate_ufrag(), generate_pwd()
    check(agent, "a", 0.0, use_candidate=True)
    agent.restart(new_ufrag, new_pwd)
    result = check(agent, "a", 1.0, ufrag=new_ufrag, pwd=new_pwd, use_candidate=True)
    assert result.retired
    assert not result.selected_changed
    assert agent.local_ufrags == (new_ufrag,)


def test_old_credentials_end_some_time_after_the_first_use_of_new_ones() -> None:
    """Also where the client never nominates a path; media stays where it was meanwhile."""
    agent = new_agent()
    new_ufrag, new_pwd = generate_ufrag(), generate_pwd()
    check(agent, "a", 0.0, use_candidate=True)
    agent.restart(new_ufrag, new_pwd)
    for now in (100.0, 120.0, 129.9):
        check(agent, "a", now)
        assert not check(agent, "b", now, ufrag=new_ufrag, pwd=new_pwd).retired
        assert agent.selected == "a"
        assert agent.local_ufrags == (new_ufrag, UFRAG)
    assert check(agent, "b", 130.0, ufrag=new_ufrag, pwd=new_pwd).retired
    assert agent.local_ufrags == (new_ufrag,)
    assert agent.selected == "a"


def test_old_credentials_stay_where_the_new_ones_are_never_used() -> None:
    """The client may have missed the answer: its consent checks go on with what it knows."""
    agent = new_agent()
    check(agent, "a", 0.0, use_candidate=True)
    agent.restart(generate_ufrag(), generate_pwd())
    for now in range(5, 500, 5):
        assert not agent.handle_timer(now)
        assert reply_of(check(agent, "a", float(now), use_candidate=True)).message_class == "success"
    assert agent.selected == "a"


def test_a_restart_does_not_prolong_consent() -> None:
    """A client whose network has changed is silent for a while: 30 s are its limit, restart or not."""
    agent = new_agent()
    check(agent, "a", 0.0)
    agent.restart(generate_ufrag(), generate_pwd())
    assert agent.get_timer() == 30.0
    assert agent.handle_timer(30.0)
    assert state_of(agent) == "lost"


def test_a_path_that_closed_gives_way_to_the_one_heard_last() -> None:
    agent = new_agent()
    check(agent, "a", 0.0, use_candidate=True)
    check(agent, "b", 1.0)
    check(agent, "c", 2.0)
    assert not agent.forget("nobody's")
    assert not agent.forget("b")
    assert agent.paths() == ("a", "c")
    assert agent.forget("a")
    assert (agent.selected, agent.paths()) == ("c", ("c",))
    assert agent.get_timer() == 32.0


def test_the_only_path_closes_and_the_client_comes_by_another() -> None:
    agent = new_agent()
    check(agent, "a", 0.0, use_candidate=True)
    assert not agent.forget("a")
    assert state_of(agent) == "connected"
    assert agent.get_timer() == 30.0
    # Whether nominated or not: there is no other.
    result = check(agent, "b", 10.0)
    assert result.selected_changed
    assert result.added
    assert agent.paths() == ("b",)
    # And where it does not come, that is the end.
    agent.forget("b")
    assert agent.handle_timer(40.0)
    assert agent.selected is None
    assert check(agent, "c", 41.0).selected_changed
    assert agent.paths() == ("c",)


def test_nominations_begin_anew_with_a_restart() -> None:
    agent = new_agent()
    new_ufrag, new_pwd = generate_ufrag(), generate_pwd()
    check(agent, "a", 0.0, nomination=9)
    agent.restart(new_ufrag, new_pwd)
    check(agent, "b", 0.5, ufrag=new_ufrag, pwd=new_pwd)
    assert check(agent, "b", 1.0, ufrag=new_ufrag, pwd=new_pwd, nomination=1).selected_changed
    assert not check(agent, "a", 2.0, nomination=10).selected_changed
    assert agent.selected == "b"


def test_of_many_restarts_the_credentials_in_use_and_the_two_newest_stay() -> None:
    agent = new_agent()
    pairs = [(UFRAG, PWD)]
    for _ in range(9):
        pairs.append((generate_ufrag(), generate_pwd()))
        agent.restart(*pairs[-1])
    kept = (pairs[0], pairs[-2], pairs[-1])
    assert agent.local_ufrags == tuple(ufrag for ufrag, _ in reversed(kept))
    for ufrag, pwd in pairs:
        answered = reply_of(check(agent, "p", 0.0, ufrag=ufrag, pwd=pwd)).message_class == "success"
        assert answered == ((ufrag, pwd) in kept)
    # The newest but one takes over: what is older has ended, what is newer waits.
    ufrag, pwd = pairs[-2]
    assert check(agent, "p", 1.0, ufrag=ufrag, pwd=pwd, use_candidate=True).retired
    assert agent.local_ufrags == (pairs[-1][0], ufrag)


@pytest.mark.parametrize(
    ("ufrag", "pwd"),
    [("abc", PWD), ("has:colon", PWD), ("ünicode", PWD), (UFRAG, "x" * 21), (UFRAG, "ü" * 30)],
)
def test_bad_credentials_are_local_misuse(ufrag: str, pwd: str) -> None:
    with pytest.raises(ValueError, match="ICE"):
        IceLite(local_ufrag=ufrag, local_pwd=pwd)
    agent = new_agent()
    with pytest.raises(ValueError, match="ICE"):
        agent.restart(ufrag, pwd)
    assert agent.local_ufrags == (UFRAG,)


def test_max_paths_is_positive() -> None:
    with pytest.raises(ValueError, match="max_paths"):
        new_agent(max_paths=0)


def test_generated_credentials() -> None:
    ufrags = {generate_ufrag() for _ in range(50)}
    passwords = {generate_pwd() for _ in range(50)}
    assert len(ufrags) == len(passwords) == 50
    for ufrag, pwd in zip(ufrags, passwords, strict=True):
        assert ufrag.isalnum()
        assert pwd.isalnum()
        IceLite[str](local_ufrag=ufrag, local_pwd=pwd)


def test_peek_local_ufrag() -> None:
    assert peek_local_ufrag(request()) == UFRAG
    assert peek_local_ufrag(memoryview(request(pwd=None))) == UFRAG
    assert peek_local_ufrag(request(username=None)) == ""
    assert peek_local_ufrag(request(username="nocolon")) == "nocolon"
    for data in (b"", bytes(20), stun.success_response(bytes(12), HOST, 1, b"key"), request()[:-4]):
        with pytest.raises(BadPacket):
            peek_local_ufrag(data)


@pytest.mark.parametrize("code", [400, 401])
def test_unauthenticated_error(code: int) -> None:
    data = request()
    reply = stun.parse_message(unauthenticated_error(memoryview(data), code))
    assert reply.message_class == "error"
    assert reply.error_code == code
    assert reply.transaction_id == data[8:20]
    assert not reply.has_integrity
    assert reply.has_fingerprint
    with pytest.raises(BadPacket):
        unauthenticated_error(stun.error_response(bytes(12), 400), code)  # never an error for an error


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from("abcdefgh"),  # path
            st.floats(0.0, 20.0),  # seconds since the one before
            st.booleans(),  # USE-CANDIDATE
            st.none() | st.integers(0, 5),  # nomination
            st.booleans(),  # authenticated
        ),
        max_size=30,
    )
)
def test_whatever_arrives_the_selected_path_is_authenticated_and_paths_are_bounded(
    checks: list[tuple[str, float, bool, int | None, bool]],
) -> None:
    """At most max_paths paths; connected exactly while there is a selected one, which is one of them; what an
    agent says was added and evicted adds up to what it has."""
    agent = new_agent(max_paths=3)
    known: set[str] = set()
    now = 0.0
    for path, delay, use_candidate, nomination, authentic in checks:
        now += delay
        if agent.handle_timer(now):
            known.clear()
        before = agent.selected
        pwd = PWD if authentic else "x" * 32
        result = check(agent, path, now, pwd=pwd, use_candidate=use_candidate, nomination=nomination)
        assert result.selected_changed == (agent.selected != before)
        assert result.added == (authentic and path not in known)
        known -= set(result.evicted)
        if result.added:
            known.add(path)
        assert set(agent.paths()) == known
        assert len(known) <= 3
        assert (agent.state == "connected") == (agent.selected is not None)
        assert agent.selected is None or agent.is_authenticated(agent.selected)
        if authentic:
            assert agent.is_authenticated(path)
            assert agent.get_timer() == now + 30.0
