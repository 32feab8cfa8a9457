"""How soon the first frame is decoded after ``consume``, in the three situations that people meet.

Each asserts that everybody gets a first frame, and prints how soon; bench/RESULTS.md keeps the figures.
"""

import statistics

import pytest

from tests.browser.conftest import OpenPage
from tests.browser.figures import note
from tests.browser.users import SMALL, User, connect

ROUNDS = 5


def video_of(user: User) -> list[str]:
    """The ids of the others' video producers."""
    return [
        each["producerId"] for each in user.call("request", "listProducers")["producers"] if each["kind"] == "video"
    ]


def report(situation: str, times: list[float | None]) -> None:
    """Print the figures of one situation, in ms; None is a first frame that never came."""
    assert all(each is not None for each in times)
    came = [each for each in times if each is not None]
    note(
        f"first frame, {situation}: median {statistics.median(came):.0f} ms, "
        f"worst {max(came):.0f} ms of {len(came)}: {[round(each) for each in came]}"
    )


BOTH_WAYS = pytest.mark.parametrize("paused", [False, True], ids=["unpaused", "paused-then-resumed"])


def way(paused: bool) -> str:
    """Old front ends ask for a running consumer; mediasoup advises a paused one, resumed when it exists."""
    return "paused, then resumed" if paused else "unpaused"


@BOTH_WAYS
def test_two_users(open_page: OpenPage, paused: bool) -> None:
    times: list[float | None] = []
    sender, viewer = (connect(open_page()) for _ in range(2))
    room = sender.join()
    viewer.join(room, audio=False, video=None)
    for _ in range(ROUNDS):
        (producer,) = video_of(viewer)
        consumed = viewer.call("consume", producer, {"paused": paused})
        times.append(consumed["timing"]["firstMs"])
        viewer.call("closeConsumer", consumed["id"])
        viewer.page.wait_for_timeout(700)
    report(f"two users ({way(paused)})", times)


def test_late_joiner(open_page: OpenPage) -> None:
    sender = connect(open_page())
    room = sender.join()
    # Longer than the server keeps anything of it: there is no keyframe but a new one.
    sender.page.wait_for_timeout(3000)
    times: list[float | None] = []
    for _ in range(3):
        viewer = connect(open_page())
        viewer.join(room, audio=False, video=None)
        (producer,) = video_of(viewer)
        times.append(viewer.call("consume", producer)["timing"]["firstMs"])
        viewer.page.context.close()
        sender.page.wait_for_timeout(1000)
    report("late joiner, sender 3 s in", times)


@BOTH_WAYS
def test_three_users_at_the_same_moment(open_page: OpenPage, paused: bool) -> None:
    users = [connect(open_page()) for _ in range(3)]
    times: list[float | None] = []
    for _ in range(3):
        room = None
        for user in users:
            room = user.call("join", room) if room else user.call("create")
            user.call("loadDevice")
            user.call("produce", {"kind": "video", "codec": "VP8", **SMALL})
        for user in users:
            user.begin("consumeAll", {"paused": paused})
        for user in users:
            consumed = user.end()
            assert len(consumed) == 2
            times += [each["timing"]["firstMs"] for each in consumed]
        for user in users:
            user.call("leave")
    report(f"three users who consume each other at the same moment ({way(paused)})", times)
