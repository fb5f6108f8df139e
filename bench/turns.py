"""Measure two sides in turns and keep the medians."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bench.cases import Case
    from bench.limits import Limits
    from bench.worker import Worker

LLAMA = "llama.cpp"


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


def compare(
    case: Case, model: Path, ours: Worker, peer: Worker | None, *, repeats: int, limits: Limits | None = None
) -> list[Row]:
    """Measure a case: A B C, A B C, ...: ours, then each setting of the peers; the best median is the peer.

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
    share = limits.share(case, model, statistics.median(mine)) if limits else None
    return rows_of(case, mine, theirs, share)


def compare_fresh(case: Case, model: Path, sides: Sides) -> list[Row]:
    """Measure a case once in processes of its own. Raises: BenchError."""
    request = {**case.work, "model": str(model)}
    with sides.ours() as worker:
        mine = [worker.ask(request)["value"]]
    theirs: dict[str, list[float]] = {}
    if sides.peer is not None:
        for name, settings in case.settings.items():
            with sides.peer() as worker:
                theirs[name] = [worker.ask({**request, "settings": settings})["value"]]
    return rows_of(case, mine, theirs)


def rows_of(
    case: Case, mine: list[float], theirs: dict[str, list[float]], share: float | None = None
) -> list[Row]:
    """Build the rows of a case from the repetitions of all sides: one for each engine among the peers."""
    value = statistics.median(mine)
    medians = {name: statistics.median(values) for name, values in theirs.items()}
    rows = []
    for engine in dict.fromkeys(engine_of(case.settings[name]) for name in medians) or [""]:
        of_engine = {n: m for n, m in medians.items() if engine_of(case.settings[n]) == engine}
        suffix = "" if engine in {"", LLAMA} else f"/{engine.replace(' ', '-')}"
        if not of_engine:
            rows.append(Row(case.name, value, None, None, case.unit, None, share))
            continue
        best = (max if case.better == "higher" else min)(of_engine, key=of_engine.__getitem__)
        ratio = value / medians[best] if case.better == "higher" else medians[best] / value
        peer = f"{engine} ({best.removeprefix(engine + ', ')})"
        rows.append(Row(case.name + suffix, value, medians[best], peer, case.unit, ratio, share))
    return rows


def engine_of(settings: Mapping[str, object]) -> str:
    """Return which peer the settings are for."""
    return str(settings.get("engine", LLAMA))


def cosines(case: Case, model: Path, ours: Worker, peer: Worker | None) -> list[Row]:
    """Compare our vectors and those of int8 with those of onnxruntime in F32. Raises: BenchError."""
    if peer is None:
        return []
    request = {**case.work, "do": "vectors", "model": str(model)}
    exact = np.array(peer.ask({**request, "settings": {"engine": "onnxruntime fp32"}})["vectors"])
    least = {"": float((np.array(ours.ask(request)["vectors"]) * exact).sum(axis=1).min())}
    for name, settings in case.settings.items():
        vectors = np.array(peer.ask({**request, "settings": settings})["vectors"])
        least[name] = float((vectors * exact).sum(axis=1).min())
    mine = least.pop("")
    best = max(least, key=least.__getitem__)
    return [Row(case.name, mine, least[best], best, case.unit, mine / least[best])]
