"""Transport-wide feedback from arrivals."""

from random import Random

from trio_sfu.media.arrivals import ArrivalRecorder
from trio_sfu.wire.transport_feedback import TransportFeedback


def received(feedback: list[TransportFeedback]) -> list[int]:
    return [
        message.base_sequence + index & 0xFFFF
        for message in feedback
        for index, delta in enumerate(message.deltas)
        if delta is not None
    ]


def test_nothing_to_say() -> None:
    assert ArrivalRecorder().take_feedback(1, 0.0) == []


def test_reports_each_arrival_once_across_the_wrap() -> None:
    recorder = ArrivalRecorder()
    taken: list[int] = []
    numbers = [number & 0xFFFF for number in range(0xFFF0, 0x10020)]
    for index, number in enumerate(numbers):
        now = 100 + index / 100
        recorder.on_packet(number, 77, now)
        feedback = recorder.take_feedback(1, now)
        assert all(message.media_ssrc == 77 and message.sender_ssrc == 1 for message in feedback)
        taken += received(feedback)
    taken += received(recorder.take_feedback(1, 200.0))
    assert taken == numbers


def test_ten_times_a_second_at_most() -> None:
    recorder = ArrivalRecorder()
    messages = 0
    for step in range(1000):
        recorder.on_packet(step, 1, step / 1000)
        messages += len(recorder.take_feedback(1, step / 1000))
    assert 8 <= messages <= 11


def test_losses_are_reported_as_such_between_messages_too() -> None:
    recorder = ArrivalRecorder()
    recorder.on_packet(10, 1, 0.0)
    assert len(recorder.take_feedback(1, 0.0)) == 1
    recorder.on_packet(13, 1, 0.1)
    (message,) = recorder.take_feedback(1, 0.1)
    assert message.base_sequence == 11
    assert [delta is None for delta in message.deltas] == [True, True, False]
    assert message.feedback_count == 1


def test_a_late_arrival_is_reported() -> None:
    recorder = ArrivalRecorder()
    recorder.on_packet(0, 1, 0.0)
    recorder.on_packet(2, 1, 0.0)
    recorder.take_feedback(1, 0.0)
    recorder.on_packet(1, 1, 0.1)
    recorder.on_packet(65535, 1, 0.1)  # overtaken by the very first
    recorder.on_packet(3, 1, 0.1)
    assert sorted(received(recorder.take_feedback(1, 0.2))) == [1, 3, 65535]


def test_a_full_recorder_reports_before_its_time() -> None:
    recorder = ArrivalRecorder()
    recorder.on_packet(0, 1, 0.0)
    recorder.take_feedback(1, 0.0)
    for number in range(1, 501):
        assert recorder.take_feedback(1, 0.001) == []
        recorder.on_packet(number, 1, 0.001)
    assert received(recorder.take_feedback(1, 0.001)) == list(range(1, 501))


def test_hostile_numbers() -> None:
    """Whatever the numbers, the messages are bounded and can be packed."""
    random = Random(5)
    recorder = ArrivalRecorder()
    for step in range(200):
        for _ in range(64):
            recorder.on_packet(random.choice((random.randrange(1 << 16), step)), 1, step / 50)
        messages = recorder.take_feedback(1, step / 50)
        assert len(messages) <= 564
        assert all(len(message.to_bytes()) <= 1200 for message in messages)
