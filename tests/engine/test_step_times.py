"""How long a step that reads will take: learned from steps, whatever disturbs them."""

import random

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


def test_slices_chosen_by_it_stay_below_what_somebody_waits_for() -> None:
    """Prompts of 2,000 tokens read in slices while others write; some steps are disturbed."""
    times, draw = ReadingTimes(), random.Random(0)
    for n_cached in range(0, 2048, 512):
        n_keys = 512 * n_cached + 512 * 256
        times.note(512, n_keys, seconds(512, n_keys))
    taken = []
    for _ in range(7):
        n_cached = 0
        while n_cached < 2000:

            def keys(n: int, n_cached: int = n_cached) -> int:
                return n * n_cached + n * n // 2 + 4 * 2000

            n = min(512, 2000 - n_cached)
            while n > 16 and times.expect(n + 4, keys(n)) > 0.18:
                n -= 8
            real = seconds(n + 4, keys(n))
            times.note(n + 4, keys(n), real * draw.choice((1, 1, 1, 1.05, 1.15, 1.4)))
            taken.append(real)
            n_cached += n
    assert max(taken) < 0.25
    assert sum(taken) / len(taken) > 0.13  # nor shorter than need be


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
