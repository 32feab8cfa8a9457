"""When the process is overloaded, how much video it keeps, and how it recovers: on a clock of the test's own."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_sfu.media.overload import Measured, Overload

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
        self.keeps: list[float] = []
        self.overload.update(Measured(self.now, 0.0, 0.0))

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            self.now += TICK
            coming = self.load * (1.0 - self.video * (1.0 - self.overload.keep)) * TICK
            served = min(self.speed * TICK, coming + self.late * coming / TICK)
            self.cpu += served
            # A queue's head gets older by what is not served, as a share of what comes.
            self.late = max(0.0, self.late + TICK - served / coming * TICK)
            self.overload.update(Measured(self.now, self.late, self.cpu))
            if not self.keeps or self.keeps[-1] != self.overload.keep:
                self.keeps.append(self.overload.keep)


def feed(overload: Overload, late: Callable[[float], float], seconds: float) -> set[tuple[bool, bool]]:
    """Lateness as a function of the seconds since the beginning. Whether strained and overloaded: all there was."""
    seen = set()
    for tick in range(round(seconds / TICK)):
        overload.update(Measured(100 + tick * TICK, late(tick * TICK), tick * TICK))
        seen.add((overload.strained, overload.overloaded))
    return seen


def test_calm_while_all_is_handled_in_time() -> None:
    overload = Overload()
    assert feed(overload, lambda _: 0.045, 60) == {(False, False)}
    assert (overload.keep, overload.episodes, overload.seconds) == (1.0, 0, 0.0)


def test_bursts_are_no_overload() -> None:
    """Each half a second late, for less than a tenth of a second."""
    overload = Overload()
    assert feed(overload, lambda time: 0.5 if time % 0.25 < 0.08 else 0.0, 60) == {(False, False)}


def test_a_queue_that_gets_shorter_by_itself_is_let_be() -> None:
    """After half a second in which the machine did something else."""
    overload = Overload()
    assert feed(overload, lambda time: max(0.0, 0.5 - time / 3), 10) == {(False, False), (True, False)}


def test_repairs_stop_before_video_and_are_back_before_it() -> None:
    machine = Machine(1.5)
    seen: list[tuple[bool, bool]] = []
    for tick in range(500):
        machine.load = 1.5 if tick < 200 else 0.5
        machine.run(TICK)
        overload = machine.overload
        if not seen or seen[-1] != (overload.strained, overload.overloaded):
            seen.append((overload.strained, overload.overloaded))
    assert seen == [(False, False), (True, False), (True, True), (False, True), (False, False)]


@pytest.mark.parametrize("load", [1.2, 1.5, 2.0, 4.0])
def test_the_first_cut_is_enough(load: float) -> None:
    machine = Machine(load, video=1.0)
    machine.run(1.0)
    assert machine.overload.overloaded
    assert machine.keeps[1:] == [pytest.approx(0.75 / load, rel=0.15)]
    assert machine.overload.episodes == 1


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
        assert machine.late < 0.05
        assert machine.overload.keep > 0.0


@pytest.mark.parametrize("load", [1.5, 2.0, 6.0])
def test_all_comes_back_when_the_load_has_fallen(load: float) -> None:
    machine = Machine(load)
    machine.run(10)
    assert machine.overload.keep < 0.9
    machine.load = 0.5
    machine.run(8)
    assert (machine.overload.strained, machine.overload.keep) == (False, 1.0)
    assert machine.overload.episodes == 1
    assert 9 < machine.overload.seconds < 18


def test_what_the_full_queue_has_dropped_counts() -> None:
    """It gets no later, though twice as much comes as is served. Sound is lost meanwhile, so it goes faster."""
    overload = Overload()
    for tick in range(8):
        overload.update(Measured(100 + tick * TICK, 0.1, tick * TICK, received=20 * tick, dropped=20 * tick))
    assert overload.keep == pytest.approx(0.75 * 0.5)


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
        overload.update(Measured(now, late, (now - 100.0) * 0.1))
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
    """With nothing late and nothing to do all comes back."""
    overload = Overload()
    now, cpu, seconds, kept, began = 100.0, 0.0, 0.0, 1.0, 0
    for late, load, passed in updates:
        now += passed
        cpu += load * passed
        overload.update(Measured(now, late, cpu))
        assert 0.0 <= overload.keep <= 1.0
        assert overload.seconds >= seconds
        began += overload.keep < 1.0 == kept
        assert overload.episodes == began
        assert overload.keep >= kept or overload.strained
        seconds, kept = overload.seconds, overload.keep
    for _ in range(round(60 / TICK)):
        now += TICK
        overload.update(Measured(now, 0.0, cpu))
    assert (overload.strained, overload.keep) == (False, 1.0)
