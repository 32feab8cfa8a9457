"""The text that Prometheus reads."""

from trio_sfu.metrics import Metric, Metrics, counter, counters, gauge, process_metrics, render


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
