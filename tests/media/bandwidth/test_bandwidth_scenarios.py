"""Estimator and allocator together on a simulated link: what the viewer gets, and how long it waits."""

import pytest

from tests.support.bandwidth_link import AUDIO, LAYERS, Link, Scene, mean_sent

TOP = len(LAYERS) - 1


def test_an_unlimited_link_carries_the_top_layer_within_five_seconds() -> None:
    scene = Scene(Link())
    scene.run(20)
    assert scene.first_time(TOP) < 5
    assert all(row.layer == TOP for row in scene.between(5, 20))
    assert scene.changes <= 3
    # What is wanted is got: nothing more is asked for.
    assert sum(row.padding for row in scene.between(5, 20)) == 0


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("feedback_loss", [0.0, 0.2])
def test_a_drop_to_400_kbit_is_followed_and_its_end_found(seed: int, feedback_loss: float) -> None:
    scene = Scene(Link(feedback_loss=feedback_loss), seed=seed)
    scene.run(10)
    assert scene.layer == TOP
    scene.link.rate = 400_000
    scene.run(22)
    assert mean_sent(scene.between(13, 22)) < 400_000
    assert all(row.layer == 0 for row in scene.between(13, 22))
    assert max(row.wait for row in scene.between(15, 22)) < 0.25
    scene.link.rate = None
    scene.run(36)
    assert scene.first_time(TOP, after=22) - 22 < 12
    assert max(row.estimate for row in scene.between(22, 30)) > 2_200_000


@pytest.mark.parametrize(
    ("rate", "layer"),
    [(200_000, 0), (400_000, 0), (700_000, 1), (1_000_000, 1), (1_500_000, 1), (2_500_000, 2), (4_000_000, 2)],
)
@pytest.mark.parametrize("queue", [0.1, 0.4])
def test_a_limited_link_gets_the_layer_that_fits_and_stays_there(rate: int, layer: int, queue: float) -> None:
    scene = Scene(Link(rate=rate, queue=queue))
    scene.run(40)
    later = scene.between(10, 40)
    assert all(row.layer == layer for row in later)
    assert scene.changes <= 4
    waits = sorted(row.wait for row in later)
    assert waits[len(waits) * 3 // 4] < 0.2
    # Probing for more costs little.
    assert sum(row.padding for row in later) < 0.12 * sum(row.sent for row in later)


@pytest.mark.parametrize(
    ("rate", "layer"), [(400_000, 0), (700_000, 1), (1_000_000, 1), (3_000_000, 2), (4_000_000, 2)]
)
@pytest.mark.parametrize("queue", [0.02, 0.03])
def test_a_queue_so_short_that_bursts_are_dropped(rate: int, layer: int, queue: float) -> None:
    scene = Scene(Link(rate=rate, queue=queue))
    scene.run(40)
    assert all(row.layer == layer for row in scene.between(10, 40))


@pytest.mark.parametrize("feedback_seconds", [0.1, 0.25])
@pytest.mark.parametrize("delay", [0.005, 0.1])
def test_rare_feedback_and_long_ways(feedback_seconds: float, delay: float) -> None:
    scene = Scene(Link(rate=3_000_000, delay=delay), feedback_seconds=feedback_seconds)
    scene.run(15)
    assert scene.layer == TOP
    scene.link.rate = 400_000
    scene.run(27)
    assert all(row.layer == 0 for row in scene.between(17, 27))
    assert max(row.wait for row in scene.between(19, 27)) < 0.25
    scene.link.rate = 3_000_000
    scene.run(40)
    assert scene.first_time(TOP, after=27) - 27 < 12


@pytest.mark.parametrize("rate", [1_600_000, 1_740_000, 1_900_000])
def test_a_link_that_is_hardly_too_slow_is_not_left_full(rate: int) -> None:
    """The queue may grow too slowly for the trend to show."""
    scene = Scene(Link())
    scene.run(10)
    scene.link.rate = rate
    scene.run(40)
    assert all(row.layer == 1 for row in scene.between(16, 40))
    assert max(row.wait for row in scene.between(16, 40)) < 0.1


def test_a_link_that_gets_slower_and_slower() -> None:
    scene = Scene(Link(rate=3_000_000))
    for step in range(40):
        scene.run(10 + step)
        scene.link.rate = 3_000_000 * (1 - step / 50)
    scene.run(54)
    assert max(row.wait for row in scene.between(5, 54)) < 0.3
    assert scene.layer == 1


@pytest.mark.parametrize("loss", [0.02, 0.05, 0.1])
def test_random_loss_alone_does_not_cost_the_top_layer(loss: float) -> None:
    scene = Scene(Link(loss=loss))
    scene.run(30)
    assert all(row.layer == TOP for row in scene.between(5, 30))


@pytest.mark.parametrize("jitter", [0.01, 0.03])
@pytest.mark.parametrize("rate", [None, 3_000_000])
def test_jitter_is_no_queue(jitter: float, rate: int | None) -> None:
    scene = Scene(Link(jitter=jitter, rate=rate))
    scene.run(30)
    assert all(row.layer == TOP for row in scene.between(10, 30))


def test_cross_traffic_takes_its_share_and_gives_it_back() -> None:
    scene = Scene(Link(rate=3_000_000))
    scene.run(10)
    assert scene.layer == TOP
    scene.link.cross = 2_000_000
    scene.link.crossed_at = scene.now
    scene.run(40)
    busy = scene.between(13, 40)
    assert sum(row.layer == 1 for row in busy) > 0.8 * len(busy)
    assert max(row.wait for row in busy) < 0.3
    scene.link.cross = 0.0
    scene.run(75)
    assert scene.layer == TOP


@pytest.mark.parametrize("skew", [2e-4, -2e-4])
def test_the_receivers_clock_may_run_fast_or_slow(skew: float) -> None:
    scene = Scene(Link(skew=skew))
    scene.run(30)
    assert all(row.layer == TOP for row in scene.between(5, 30))


def test_numbers_wrap() -> None:
    runs = []
    for first in (0, 0xFF00):
        scene = Scene(Link(rate=1_000_000), first_number=first)
        scene.run(15)
        runs.append(scene.rows)
    assert runs[0] == runs[1]
    assert len(runs[0]) > 100


def test_two_transports_know_nothing_of_each_other() -> None:
    alone = Scene(Link())
    alone.run(12)
    fast, slow = Scene(Link()), Scene(Link(rate=200_000))
    for step in range(1, 121):
        slow.run(step / 10)
        fast.run(step / 10)
    assert slow.layer == 0
    assert fast.rows == alone.rows


def test_a_link_that_goes_dead_leaves_little_of_the_estimate() -> None:
    scene = Scene(Link())
    scene.run(10)
    before = scene.estimator.bitrate
    assert before is not None
    scene.link.loss = scene.link.feedback_loss = 1.0
    scene.run(12.5)
    assert scene.estimator.bitrate == pytest.approx(before, rel=0.1)  # held
    scene.run(30)
    after = scene.estimator.bitrate
    assert after is not None
    assert after < before / 3
    assert scene.estimator.state == "silent"
    scene.link.loss = scene.link.feedback_loss = 0.0
    scene.run(45)
    assert scene.layer == TOP


def test_audio_alone_is_never_probed_for() -> None:
    scene = Scene(Link(), layers=(1,))
    scene.run(20)
    assert sum(row.padding for row in scene.rows) == 0
    estimate = scene.estimator.bitrate
    assert estimate is not None
    # Much less is sent than the estimate says: it neither runs away nor collapses.
    assert AUDIO < estimate <= 600_000


@pytest.mark.parametrize(
    ("rate", "chosen"),
    [
        (1_000_000, [0, 0, 0, 0, 0]),
        (2_000_000, [1, 1, 0, 0, 0]),
        (4_000_000, [1, 1, 1, 1, 1]),
        (8_000_000, [2, 2, 2, 1, 1]),
        (20_000_000, [2, 2, 2, 2, 2]),
    ],
)
def test_five_videos_share_the_link_and_keep_their_layers(rate: int, chosen: list[int]) -> None:
    scene = Scene(Link(rate=rate), videos=5)
    scene.run(15)
    assert scene.chosen == chosen
    changes = scene.changes
    scene.run(30)
    assert scene.chosen == chosen
    assert scene.changes - changes <= 2
    assert mean_sent(scene.between(15, 30)) < rate
    assert max(row.wait for row in scene.between(15, 30)) < 0.2
