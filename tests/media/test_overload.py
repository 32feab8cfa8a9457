"""When the process is overloaded, how much video it keeps, and how it recovers: on a clock of the test's own."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.media.overload import LATE_SECONDS, Change, Overload

TICK = 0.02


class Machine:
    """A queue that ``load`` of a core's work comes to each second, ``video`` of that; what is kept of it is served."""

    def __init__(self, load: float, *, video: float = 0.9, speed: float = 1.0) -> None:
        self.overload = Overload()
        self.load = load
        self.video = video
        self.speed = speed
        """What the machine gives us of a core."""
        self.now = 100.0
        self.cpu = 0.0
        self.late = 0.0
        self.changes: list[Change] = []
        self.keeps: list[float] = []
        self.overload.update(0.0, 0.0, self.now)

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            coming = self.load * (1.0 - self.video * (1.0 - self.overload.keep)) * TICK
            served = min(self.speed * TICK, coming + self.late * coming / TICK)
            self.cpu += served
            # A queue's head gets older by what is not served, as a share of what comes.
            self.late = max(0.0, self.late + TICK - served / coming * TICK)
            change = self.overload.update(self.late, self.cpu, self.now)
            if change is not None:
                self.changes.append(change)
            if not self.keeps or self.keeps[-1] != self.overload.keep:
                self.keeps.append(self.overload.keep)


def feed(overload: Overload, late: Callable[[float], float], seconds: float, *, load: float = 1.0) -> list[Change]:
    """Lateness as a function of the seconds since the beginning."""
    changes = []
    for tick in range(round(seconds / TICK)):
        change = overload.update(late(tick * TICK), load * tick * TICK, 100 + tick * TICK)
        if change is not None:
            changes.append(change)
    return changes


def test_calm_while_all_is_handled_in_time() -> None:
    overload = Overload()
    assert feed(overload, lambda _: LATE_SECONDS * 0.9, 60) == []
    assert (overload.state, overload.keep, overload.episodes) == ("calm", 1.0, 0)


def test_bursts_are_no_overload() -> None:
    """Each half a second late, for less than a tenth of a second."""
    overload = Overload()
    assert feed(overload, lambda time: 0.5 if time % 0.25 < 0.08 else 0.0, 60) == []
    assert overload.state == "calm"


def test_a_queue_that_gets_shorter_by_itself_is_let_be() -> None:
    """After half a second in which the machine did something else."""
    overload = Overload()
    assert feed(overload, lambda time: max(0.0, 0.5 - time / 3), 10) == []
    assert overload.keep == 1.0


def test_repairs_and_probes_stop_before_video() -> None:
    overload = Overload()
    states: list[tuple[str, bool, bool]] = []
    for tick in range(30):
        overload.update(LATE_SECONDS + tick * TICK / 2, tick * TICK, 100 + tick * TICK)
        if not states or states[-1] != (overload.state, overload.strained, overload.keep == 1.0):
            states.append((overload.state, overload.strained, overload.keep == 1.0))
    assert states == [("calm", False, True), ("strained", True, True), ("overloaded", True, False)]


@pytest.mark.parametrize("load", [1.2, 1.5, 2.0, 4.0])
def test_the_first_cut_is_enough(load: float) -> None:
    machine = Machine(load, video=1.0)
    machine.run(1.0)
    assert machine.overload.state == "overloaded"
    assert machine.keeps[1:] == [pytest.approx(0.75 / load, rel=0.15)]
    assert machine.changes[0].began


@pytest.mark.parametrize("load", [1.05, 1.5, 2.0, 3.0])
@pytest.mark.parametrize("video", [0.5, 0.9, 1.0])
def test_a_load_that_stays_is_not_followed_to_and_fro(load: float, video: float) -> None:
    machine = Machine(load, video=video)
    machine.run(10)
    settled = len(machine.keeps)
    machine.run(60)
    later = machine.keeps[settled - 1 :]
    falls = sum(after < before for before, after in pairwise(later))
    assert falls <= 2
    if load * (1 - video) < 0.8:
        assert machine.late < LATE_SECONDS
        assert machine.overload.keep > 0.0


@pytest.mark.parametrize("load", [1.5, 2.0, 6.0])
def test_all_comes_back_when_the_load_has_fallen(load: float) -> None:
    machine = Machine(load)
    machine.run(10)
    assert machine.overload.keep < 0.9
    machine.load = 0.5
    machine.run(8)
    assert (machine.overload.state, machine.overload.strained, machine.overload.keep) == ("calm", False, 1.0)
    assert [change.began for change in machine.changes] == [True, False]
    assert machine.overload.episodes == 1
    assert machine.overload.seconds == pytest.approx(machine.changes[-1].seconds, abs=0.1)


def test_what_the_full_queue_has_dropped_counts() -> None:
    """It gets no later, though twice as much comes as is served."""
    overload = Overload()
    for tick in range(25):
        overload.update(0.1, tick * TICK, 100 + tick * TICK, 0.5)
    assert overload.keep == pytest.approx(0.75 * 0.5, rel=0.15)


def test_less_and_less_where_the_rest_alone_is_too_much() -> None:
    machine = Machine(3.0, video=0.5)
    machine.run(5)
    assert machine.overload.keep == 0.0


def test_on_a_machine_that_others_use_it_recovers_too() -> None:
    machine = Machine(0.6, speed=0.4)
    machine.run(20)
    assert machine.overload.keep < 1.0
    machine.speed = 1.0
    machine.run(60)
    assert machine.overload.keep == 1.0


def test_rises_that_fail_are_tried_less_and_less_often() -> None:
    """Whatever the CPU time says: here it says that there is room, and there is none."""
    overload, cuts, late = Overload(), [], 0.0
    now, before = 100.0, 1.0
    for _ in range(round(200 / TICK)):
        now += TICK
        late = late + TICK / 2 if overload.keep > 0.4 else max(0.0, late - TICK / 2)
        overload.update(late, (now - 100.0) * 0.1, now)
        if overload.keep < before:
            cuts.append(now)
        before = overload.keep
    pauses = [after - before for before, after in pairwise(cuts)]
    assert len(cuts) >= 4
    assert max(pauses[-3:]) > 20
    assert max(pauses[:2]) < 10


@given(
    st.lists(
        st.tuples(
            st.floats(0, 30, allow_nan=False), st.floats(0, 1, allow_nan=False), st.floats(0, 2, allow_nan=False)
        ),
        max_size=200,
    )
)
def test_whatever_comes(updates: list[tuple[float, float, float]]) -> None:
    """Video is left out while overloaded and only then; with nothing late and nothing to do all comes back."""
    overload = Overload()
    now, cpu, seconds, open_episodes = 100.0, 0.0, 0.0, 0
    for late, load, passed in updates:
        now += passed
        cpu += load * passed
        change = overload.update(late, cpu, now)
        open_episodes += 0 if change is None else 1 if change.began else -1
        assert 0.0 <= overload.keep <= 1.0
        assert (overload.keep < 1.0) == (overload.state == "overloaded") == (open_episodes == 1)
        assert overload.strained == (overload.state != "calm")
        assert overload.seconds >= seconds
        seconds = overload.seconds
    for _ in range(round(60 / TICK)):
        now += TICK
        overload.update(0.0, cpu, now)
    assert overload.state == "calm"
