"""When padding is asked for, how much, and what its arrival says."""

import pytest

from trio_sfu.media.bandwidth.probing import Probe, ProbeController, ProbeResult
from trio_sfu.media.bandwidth.sent_history import GroupReport


class Sender:
    """Sends what it is asked for over a link that carries ``rate``."""

    def __init__(self, wanted: float, bitrate: float) -> None:
        self.probes = ProbeController()
        self.probes.wanted = wanted
        self.bitrate = bitrate
        self.now = 10.0
        self.sent = 0
        self.group = 0

    def cluster(self, rate: float, *, media: int = 0) -> tuple[list[Probe], list[GroupReport]]:
        """One cluster to its end: what was asked for, and the groups with their arrivals."""
        asked: list[Probe] = []
        groups: list[GroupReport] = []
        free = 0.0
        while True:
            probe = self.probes.take(self.bitrate, self.now, self.sent, calm=True)
            if probe is None:
                return asked, groups
            asked.append(probe)
            size = probe.size + media
            self.sent += size
            free = max(free, self.now) + size * 8 / rate
            self.group += 1
            groups.append((self.group, self.now, 900 + free, size, probe.id))
            self.now += 0.02

    def result(self, groups: list[GroupReport]) -> ProbeResult | None:
        """Report them, and something after them."""
        self.now += 0.1
        self.group += 1
        return self.probes.on_groups([*groups, (self.group, self.now, 900 + self.now, 100, 0)], self.now)


def test_the_first_probe_is_three_times_the_estimate() -> None:
    sender = Sender(5_000_000, 600_000)
    asked, _ = sender.cluster(1e9)
    assert {probe.bitrate for probe in asked} == {1_800_000}
    assert len(asked) == 5
    assert sum(probe.size for probe in asked) * 8 / 0.1 == pytest.approx(1_800_000)


def test_a_probe_that_comes_through_is_the_new_estimate_and_the_next_one_follows() -> None:
    sender = Sender(5_000_000, 600_000)
    _, groups = sender.cluster(1e9)
    result = sender.result(groups)
    assert result is not None
    assert result.bitrate == pytest.approx(1_800_000, rel=0.01)
    sender.bitrate = result.bitrate or 0
    asked, _ = sender.cluster(1e9)
    assert asked[0].bitrate == pytest.approx(3_600_000, rel=0.01)


def test_a_link_that_is_full_tells_its_rate_and_is_left_alone_for_a_while() -> None:
    sender = Sender(5_000_000, 600_000)
    _, groups = sender.cluster(1_000_000)
    result = sender.result(groups)
    assert result is not None
    assert result.bitrate == pytest.approx(950_000, rel=0.01)
    sender.bitrate = 950_000
    pauses = []
    for _ in range(6):
        begin = sender.now
        while (asked := sender.cluster(1_000_000)) == ([], []):
            sender.now += 0.02
        assert asked[0][0].bitrate == 1_900_000
        pauses.append(sender.now - begin)
        sender.result(asked[1])
    assert pauses[0] == pytest.approx(2, abs=0.2)
    assert pauses[-1] == pytest.approx(5, abs=0.2)


def test_nothing_is_asked_for_that_nobody_wants() -> None:
    assert Sender(400_000, 600_000).cluster(1e9) == ([], [])
    asked, _ = Sender(700_000, 600_000).cluster(1e9)
    assert asked[0].bitrate == 1_050_000  # one and a half of it


def test_media_fill_the_probe_first() -> None:
    asked, _ = Sender(5_000_000, 600_000).cluster(1e9, media=4000)
    plain, _ = Sender(5_000_000, 600_000).cluster(1e9)
    assert sum(probe.size for probe in asked) < sum(probe.size for probe in plain) - 4 * 4000 + 1000
    full, _ = Sender(5_000_000, 600_000).cluster(1e9, media=10_000)
    assert [probe.size for probe in full[1:]] == [0] * 4


def test_no_probe_begins_without_calm() -> None:
    sender = Sender(5_000_000, 600_000)
    assert sender.probes.take(600_000, 10.0, 0, calm=False) is None
    sender.probes.on_drop(10.0)
    assert sender.probes.take(600_000, 11.4, 0, calm=True) is None
    assert sender.probes.take(600_000, 11.6, 0, calm=True) is not None


def test_a_cluster_that_is_not_reported_on_is_given_up() -> None:
    sender = Sender(5_000_000, 600_000)
    sender.cluster(1e9)
    assert sender.probes.disturbs(sender.now)
    assert sender.probes.expire(sender.now + 1) is None
    given_up = sender.now + 2
    assert sender.probes.expire(given_up) == ProbeResult(1_800_000, None)
    assert not sender.probes.disturbs(sender.now + 3)
    # It has found nothing out, so the next one comes soon.
    assert sender.probes.take(600_000, given_up + 0.9, 0, calm=True) is None
    assert sender.probes.take(600_000, given_up + 1.1, 0, calm=True) is not None


def test_a_cluster_that_nobody_sends_disturbs_nothing() -> None:
    probes = ProbeController()
    probes.wanted = 5_000_000
    asked = [probes.take(600_000, 10 + index * 0.02, 0, calm=True) for index in range(100)]
    assert sum(probe is not None for probe in asked) == 5
    assert not probes.disturbs(10.2)


def test_lost_feedback_in_the_middle_does_not_spoil_the_measurement() -> None:
    sender = Sender(5_000_000, 600_000)
    _, groups = sender.cluster(1_000_000)
    result = sender.result([groups[0], groups[1], groups[3], groups[4]])
    assert result is not None
    assert result.bitrate == pytest.approx(950_000, rel=0.02)


@pytest.mark.parametrize(("share", "found"), [(0.05, 1_800_000), (0.14, 1_800_000), (0.4, 1_080_000)])
def test_what_a_short_queue_drops_has_not_come_through(share: float, found: float) -> None:
    sender = Sender(5_000_000, 600_000)
    _, groups = sender.cluster(1e9)
    arrived = [(number, sent, at, round(size * (1 - share)), probe) for number, sent, at, size, probe in groups]
    sender.probes.on_groups([], sender.now, lost=round(sender.sent * share))
    result = sender.result(arrived)
    assert result is not None
    assert result.bitrate == pytest.approx(found, rel=0.01)


@pytest.mark.parametrize("arrivals", [[900.0] * 5, [900.0, 899.9, 899.8, 899.7, 899.6], [900, 900, 900, 900, 900.001]])
def test_arrivals_that_cannot_be_are_not_believed(arrivals: list[float]) -> None:
    sender = Sender(5_000_000, 600_000)
    _, groups = sender.cluster(1e9)
    made_up = [(each[0], each[1], at, each[3], each[4]) for each, at in zip(groups, arrivals, strict=True)]
    assert sender.result(made_up) == ProbeResult(1_800_000, None)
