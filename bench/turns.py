"""Measure two sides in turns and keep the medians."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.cases import Case
    from bench.worker import Worker


@dataclass(frozen=True, slots=True)
class Row:
    """A line of results.json. `ratio` > 1: ours is better, for times too."""

    name: str
    ours: float | None
    peer: float | None
    peer_name: str | None
    unit: str
    ratio: float | None
    share_of_limit: float | None = None

    def as_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Sides:
    """How to start our worker and the peer's; `peer` None where its environment is absent."""

    ours: Callable[[], Worker]
    peer: Callable[[], Worker] | None


def compare(case: Case, model: Path, ours: Worker, peer: Worker | None, *, repeats: int) -> Row:
    """Measure a case: A B C, A B C, ...: ours, then each setting of the peer; the best median is the peer.

    The first round warms caches and loads the models, and is not counted. Raises: BenchError.
    """
    request = {**case.work, "model": str(model)}
    mine: list[float] = []
    theirs: dict[str, list[float]] = {name: [] for name in case.settings} if peer else {}
    for round_ in range(repeats + 1):
        values = {"": ours.ask(request)["value"]}
        for name, settings in case.settings.items() if peer else ():
            assert peer is not None
            values[name] = peer.ask({**request, "settings": settings})["value"]
        if round_ > 0:
            mine.append(values.pop(""))
            for name, value in values.items():
                theirs[name].append(value)
    return row_of(case, mine, theirs)


def compare_fresh(case: Case, model: Path, sides: Sides) -> Row:
    """Measure a case once in processes of its own. Raises: BenchError."""
    request = {**case.work, "model": str(model)}
    with sides.ours() as worker:
        mine = [worker.ask(request)["value"]]
    theirs: dict[str, list[float]] = {}
    if sides.peer is not None:
        for name, settings in case.settings.items():
            with sides.peer() as worker:
                theirs[name] = [worker.ask({**request, "settings": settings})["value"]]
    return row_of(case, mine, theirs)


def row_of(case: Case, mine: list[float], theirs: dict[str, list[float]]) -> Row:
    """Build a row from the repetitions of both sides."""
    value = statistics.median(mine)
    medians = {name: statistics.median(values) for name, values in theirs.items()}
    if not medians:
        return Row(case.name, value, None, None, case.unit, None)
    best = (max if case.better == "higher" else min)(medians, key=medians.__getitem__)
    ratio = value / medians[best] if case.better == "higher" else medians[best] / value
    return Row(case.name, value, medians[best], f"llama.cpp ({best})", case.unit, ratio)
