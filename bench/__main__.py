"""Measure Quarry against its peers: `make bench`, or `python -m bench --help`."""

from __future__ import annotations

import argparse
import itertools
import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from bench import conversations, fixtures, indexing, ingestion, machine, product, serving
from bench.cases import STARTER_CHAT, Case, shape_cases, starter_cases
from bench.limits import Limits
from bench.plot import draw
from bench.report import line_of, save, table_of
from bench.turns import Row, Sides, compare, compare_fresh, cosines
from bench.worker import ROOT, BenchError, Worker
from engine.errors import EngineError
from ingest.errors import IngestError
from ingest.words import WORDS_VERSION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

PEER_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
# Another way of cutting words needs another index.
INDEX_100K = fixtures.CACHE / f"index-100k-{WORDS_VERSION}"
RESULTS = ROOT / "bench" / "results.json"
PLOT = ROOT / "docs" / "performance.svg"

PRODUCT: dict[str, Callable[[], Iterable[Row]]] = {
    "retrieve/10k": lambda: product.retrieve(fixtures.CACHE / "retrieve-10k"),
    "ingest/read/mixed": lambda: ingestion.read_mixed(fixtures.CACHE / "mixed", fixtures.models_folder()),
    "ingest/read/one": lambda: ingestion.read_one(fixtures.models_folder()),
    "ingest/rescan/20k_s": ingestion.rescan,
    "ingest/change/1mb_chunks": lambda: ingestion.change_one(fixtures.models_folder()),
    "ingest/embed_share": lambda: ingestion.embed_share(fixtures.models_folder()),
    "ingest/memory/mib_per_1000": ingestion.memory,
    **serving.rows(fixtures.CACHE, lambda: fixtures.model_path(STARTER_CHAT, peer=None)),
    "index/100k/search": lambda: indexing.searching(INDEX_100K, fixtures.models_folder()),
    "index/100k/replace": lambda: indexing.replacing(INDEX_100K, fixtures.models_folder()),
    "index/100k/ingest": lambda: indexing.ingesting(INDEX_100K, fixtures.models_folder()),
    "build/native_s": product.build,
    "start/second_s": lambda: product.second_start(fixtures.CACHE / "start", fixtures.models_folder()),
}


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument(
        "--only", default="", metavar="PREFIX", help="rows whose name starts so; commas allowed"
    )
    parser.add_argument(
        "--settings",
        metavar="NAME",
        help="a piece of a row that takes minutes: only the peer's settings whose names begin so, none of "
        "them or some, and nothing is saved",
    )
    parser.add_argument("--shapes", action="store_true", help="also the rows on the shapes of larger models")
    parser.add_argument("--repeats", type=int, default=5, help="counted turns a row (default 5)")
    parser.add_argument("--quick", action="store_true", help="one turn a row, and no product rows")
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="of both sides (default: all)"
    )
    parser.add_argument("--list", action="store_true", help="name the rows and measure nothing")
    parser.add_argument("--no-save", action="store_true", help="leave bench/results.json as it is")
    parser.add_argument(
        "--plot", action="store_true", help="draw bench/results.json as docs/performance.svg; measure nothing"
    )
    options = parser.parse_args()
    if options.repeats < 1:
        parser.error(f"--repeats is {options.repeats}; it must be at least 1")
    if options.threads < 1:
        parser.error(f"--threads is {options.threads}; it must be at least 1")
    return options


def main() -> int:
    options = arguments()
    console = Console(width=None if sys.stdout.isatty() else 140)
    if options.plot:
        if not RESULTS.exists():
            console.print(f"there is no {RESULTS}: measure something first")
            return 2
        console.print(f"{PLOT}: {draw(RESULTS, PLOT)} rows")
        return 0
    prefixes = tuple(options.only.split(","))
    every = itertools.chain(starter_cases(), shape_cases() if options.shapes or options.only else ())
    cases = [case for case in every if case.name.startswith(prefixes)]
    if options.settings is not None:
        cases = [replace(case, settings=_named(case, options.settings)) for case in cases]
    others = {} if options.quick else {n: run for n, run in PRODUCT.items() if _matches(n, prefixes)}
    if options.list:
        console.print("\n".join([*(case.name for case in cases), *others]), highlight=False)
        return 0
    if not cases and not others:
        console.print(f"no row starts with {options.only!r}; --list --shapes names them")
        return 2
    rows: list[Row] = []
    failures: list[str] = []
    if options.quick:
        cases = [replace(case, work={**case.work, "n_passages": 16}) for case in cases]
    repeats = 1 if options.quick else options.repeats
    for result in _measure(cases, others, repeats, options.threads, console):
        if isinstance(result, str):
            failures.append(result)
            console.print(f"failed: {result}", style="red", markup=False)
        else:
            rows.append(result)
            console.print(line_of(result), highlight=False, markup=False)
            if (
                not options.no_save and options.settings is None
            ):  # at once: a run that is cut off keeps what it has measured
                save(RESULTS, [result])
    console.print(table_of(rows))
    return 1 if failures else 0


def _named(case: Case, prefix: str) -> dict[str, Mapping[str, object]]:
    return {name: setting for name, setting in case.settings.items() if name.startswith(prefix)}


def _matches(name: str, prefixes: tuple[str, ...]) -> bool:
    return any(name.startswith(prefix) or prefix.startswith(name) for prefix in prefixes)


def _measure(
    cases: list[Case],
    others: dict[str, Callable[[], Iterable[Row]]],
    repeats: int,
    n_threads: int,
    console: Console,
) -> Iterator[Row | str]:
    """Yield each row, or the reason why it could not be measured."""
    console.print(machine.describe())
    if cases:
        yield from _measure_cases(cases, repeats, n_threads, console)
    for name, run in others.items():
        try:
            yield from run()
        except (BenchError, EngineError, IngestError, OSError) as error:
            yield f"{name}: {error}"


def _measure_cases(cases: list[Case], repeats: int, n_threads: int, console: Console) -> Iterator[Row | str]:
    sides = Sides(
        ours=partial(Worker, Path(sys.executable), "bench.ours", str(n_threads)),
        peer=partial(Worker, PEER_PYTHON, "bench.peer", str(n_threads)) if PEER_PYTHON.exists() else None,
    )
    if sides.peer is None:
        console.print("no .venv-peers here: rows have no peer (docs/performance.md tells how to make it)")
    try:
        ours, peer = sides.ours(), sides.peer() if sides.peer else None
        console.print({"ours": ours.ask({"do": "describe"})})
        limits = Limits(ours.ask({"do": "peaks"}))
        if peer:
            console.print({"peer": peer.ask({"do": "describe"})})
    except BenchError as error:
        yield str(error)
        return
    yield from limits.rows()
    with ours:
        for case in cases:
            try:
                path = fixtures.model_path(case.model, peer=sides.peer)
                if case.fresh:
                    yield from compare_fresh(case, path, sides)
                elif case.work["do"] == "cosines":
                    yield from cosines(case, path, ours, peer)
                elif case.work["do"] == "chats":
                    yield from conversations.compare_chats(case, path, ours, peer, repeats=repeats)
                elif case.work["do"] == "lookup":
                    yield from conversations.compare_lookup(case, path, ours, repeats=repeats)
                else:
                    yield from compare(case, path, ours, peer, repeats=repeats, limits=limits)
            except (BenchError, EngineError, IngestError, OSError) as error:
                yield f"{case.name}: {error}"
    if peer:
        peer.close()


if __name__ == "__main__":
    sys.exit(main())
