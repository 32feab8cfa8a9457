"""The text that Prometheus reads."""

from trio_sfu.media.overload import Measured, Overload
from trio_sfu.metrics import Metric, Metrics, counter, counters, gauge, overload_metrics, process_metrics, render


def test_format() -> None:
    text = render(
        [
            gauge("rooms", "Rooms.", 2),
            counter("seconds_total", "Time.", 1.25),
            counters("drops_total", "Dropped.", "reason", {"unknown": 3, 'od"d\\\n': 4}),
            Metric("empty", "gauge", "None.", ()),
        ]
    )
    assert text == (
        "# HELP trio_sfu_rooms Rooms.\n"
        "# TYPE trio_sfu_rooms gauge\n"
        "trio_sfu_rooms 2\n"
        "# HELP trio_sfu_seconds_total Time.\n"
        "# TYPE trio_sfu_seconds_total counter\n"
        "trio_sfu_seconds_total 1.25\n"
        "# HELP trio_sfu_drops_total Dropped.\n"
        "# TYPE trio_sfu_drops_total counter\n"
        'trio_sfu_drops_total{reason="unknown"} 3\n'
        'trio_sfu_drops_total{reason="od\\"d\\\\\\n"} 4\n'
        "# HELP trio_sfu_empty None.\n"
        "# TYPE trio_sfu_empty gauge\n"
    )


async def test_the_process() -> None:
    metrics = Metrics()
    metrics.add(process_metrics)
    metrics.add(lambda: [gauge("rooms", "Rooms.", 0)])
    values = dict(line.split() for line in metrics.render().splitlines() if not line.startswith("#"))
    assert float(values["trio_sfu_tasks"]) >= 1
    assert float(values["trio_sfu_open_fds"]) >= 3
    assert float(values["trio_sfu_resident_bytes"]) > 1e6
    assert values["trio_sfu_rooms"] == "0"


def test_overload_is_shown() -> None:
    overload = Overload()
    for tick in range(50):
        overload.update(Measured(100 + 0.02 * tick, 0.05 + 0.01 * tick, 0.02 * tick))
    shown = {metric.name: metric.values[0][1] for metric in overload_metrics(overload)}
    assert shown["overload_strained"] == shown["overload_episodes_total"] == 1
    assert 0.0 <= shown["overload_video_kept"] < 0.5
    assert 0.5 < shown["overload_seconds_total"] < 1.0
    assert shown["behind_seconds"] == overload.late
