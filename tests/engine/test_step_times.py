"""How long a step that reads will take: learned from steps, whatever disturbs them."""

import pytest

from engine.step_times import ReadingTimes


def seconds(n_rows: int, n_keys: int) -> float:
    """As a model of 1.5 B weights takes on two cores."""
    return 0.05 + 0.0027 * n_rows + 3.5e-7 * n_keys


def test_nothing_is_known_at_first() -> None:
    times = ReadingTimes()
    assert times.expect(512, 10**6) == 0
    times.note(512, 131_000, 1.5)
    assert times.expect(512, 131_000) == pytest.approx(1.5, rel=1e-3)
    # One step does not tell what rows cost: a short one is not taken to be cheap.
    assert times.expect(64, 4_000) > seconds(64, 4_000)


def test_rows_and_what_they_look_back_at_are_told_apart() -> None:
    times = ReadingTimes()
    for n_rows, n_cached in ((512, 0), (512, 512), (100, 1024), (300, 100), (40, 1500)):
        n_keys = n_rows * n_cached + n_rows * n_rows // 2
        times.note(n_rows, n_keys, seconds(n_rows, n_keys))
    for n_rows, n_keys in ((16, 32_000), (200, 20_000), (512, 1_000_000)):
        assert times.expect(n_rows, n_keys) == pytest.approx(seconds(n_rows, n_keys), rel=0.02)


def test_it_says_how_late_steps_were_and_how_long_one_may_be() -> None:
    times = ReadingTimes()
    assert (times.most_rows, times.margin) == (0, 1)
    for _ in range(20):
        times.note(100, 5_000, 0.2)
    assert times.most_rows == 200
    assert times.margin == pytest.approx(1, abs=0.01)
    times.note(100, 5_000, 0.4)
    assert times.margin == pytest.approx(2, rel=0.05)
    for _ in range(30):
        times.note(20, 200, times.expect(20, 200))
    assert times.margin < 1.1
    assert times.most_rows == 40


def test_no_part_costs_less_than_nothing() -> None:
    times = ReadingTimes()
    for n_rows, n_keys, took in (
        (512, 131_000, 1.4),
        (512, 393_000, 1.2),
        (100, 5_000, 0.9),
        (50, 90_000, 0.1),
    ):
        times.note(n_rows, n_keys, took)
        assert times.expect(16, 100) >= 0
        assert times.expect(16, 10**7) >= times.expect(16, 100)
        assert times.expect(1000, 100) >= times.expect(16, 100)
