"""Several people at once, and answers that quote: measured through the scheduler, as the service runs it."""

from __future__ import annotations

import statistics
import threading
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench import prompts
from bench.turns import Row, rows_of
from bench.worker import BenchError
from engine.engine import Engine
from engine.generation import Generation, GenerationParams

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bench.cases import Case
    from bench.worker import Worker

# Four paragraphs of a handbook. An answer that repeats one of them is quoted word for word.
PASSAGES = """
Every employee may work from home on up to two days a week. The days are agreed with the team lead at the
beginning of each month and entered in the calendar by the fifth. Equipment is lent by the company: a
laptop, a headset and one monitor of at least 24 inches. Whoever needs a second monitor asks the Harbour
office, which keeps nine of them.

The billing service was moved to a new machine on 14 March 2024. The move took four hours and eleven
minutes, of which ninety minutes were spent waiting for the network team to open port 8443. Marta Lindqvist
keeps the list of the customers concerned. Invoices that were due on that day were sent two days later, and
no reminder was sent before the end of April.

Travel is booked through the portal. Trains are preferred to flights where the journey takes less than six
hours. The daily allowance is 48 euros in Germany and 62 euros in Switzerland; breakfast, if it is part of
the price of the room, takes nine euros off. Receipts are handed in within thirty days, as photographs or on
paper, with the form RK-7.

The building is open from six in the morning until ten in the evening. Visitors are registered at the
reception and wear a badge. In case of fire the assembly point is the car park behind the canteen. The fire
drill takes place twice a year, in May and in November, and is announced one week ahead by mail to
everybody.
"""


class Engines:
    """Keeps the engines of the model that was asked for last, so that a turn measures no loading."""

    def __init__(self, n_threads: int) -> None:
        self._n_threads = n_threads
        self._path = ""
        self._engines: dict[tuple[int, bool], Engine] = {}

    def get(self, path: str, *, cache_tokens: int, speculates: bool = True) -> Engine:
        if path != self._path:
            self.drop()
            self._path = path
        if (cache_tokens, speculates) not in self._engines:
            self._engines[cache_tokens, speculates] = Engine.open(
                chat_model=Path(path),
                embedding_model=None,
                threads=self._n_threads,
                cache_tokens=cache_tokens,
                speculates=speculates,
            )
        return self._engines[cache_tokens, speculates]

    def drop(self) -> None:
        for engine in self._engines.values():
            engine.close()
        self._engines.clear()


class _Reader(threading.Thread):
    """Reads one stream to its end and notes when each piece came."""

    def __init__(self, generation: Generation) -> None:
        super().__init__()
        self._generation = generation
        self.came_at: list[float] = []
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.came_at = [perf_counter() for _ in self._generation]
        except Exception as error:  # noqa: BLE001 - raised where the thread is joined
            self.error = error


def chats(engines: Engines, request: Mapping[str, Any]) -> dict[str, float]:
    """Return the seconds until the last of several chats has ended, and the longest pause of any stream.

    Nothing of the prompts is known before, and they share nothing. "warm": a few tokens only.
    """
    n_chats, n_prompt, n_tokens = request["n_chats"], request["n_prompt"], request["n_tokens"]
    cache_tokens = n_chats * (n_prompt + n_tokens + 64)
    engine = engines.get(request["model"], cache_tokens=cache_tokens)
    assert engine.chat is not None
    if request.get("warm"):
        n_chats, n_prompt, n_tokens = 1, 64, 4
    params = GenerationParams(
        temperature=0, max_tokens=n_tokens, logit_bias=dict.fromkeys(engine.chat.end_ids, -1e5)
    )
    ids = [prompts.token_ids(n_prompt, engine.chat.vocab_size, seed=s) for s in range(n_chats)]
    start = perf_counter()
    readers = [_Reader(engine.chat.generate(prompt, params)) for prompt in ids]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    seconds = perf_counter() - start
    for reader in readers:
        if reader.error is not None:
            raise BenchError(f"a chat failed: {reader.error}") from reader.error
    pauses = [later - earlier for r in readers for earlier, later in pairwise(r.came_at)]
    return {"value": seconds, "pause_ms": 1000 * max(pauses)}


def lookup(engines: Engines, request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the tokens a second of answers that repeat a passage of their prompt, and their tokens."""
    engine = engines.get(request["model"], cache_tokens=4096, speculates=request["speculates"])
    assert engine.chat is not None
    params = GenerationParams(temperature=0, max_tokens=request["n_tokens"])
    n_tokens, seconds, texts = 0, 0.0, []
    for passage in PASSAGES.split("\n\n"):
        question = f"Repeat this text word for word:\n\n{' '.join(passage.split())}"
        prompt = engine.chat.prompt_tokens([{"role": "user", "content": question}])
        generation = engine.chat.generate(prompt, params)
        deltas = iter(generation)
        text = next(deltas).text
        start = perf_counter()
        text += "".join(delta.text for delta in deltas)
        seconds += perf_counter() - start
        n_tokens += generation.n_completion_tokens - 1
        texts.append(text)
    return {"value": n_tokens / seconds, "texts": texts, "n_tokens": n_tokens}


MEASURES: Mapping[str, Callable[[Engines, Mapping[str, Any]], dict[str, Any]]] = {
    "chats": chats,
    "lookup": lookup,
}


def compare_chats(
    case: Case, model: Path, ours: Worker, peer: Worker | None, *, repeats: int
) -> Iterator[Row]:
    """Yield the rows of chats that come at once: all together, and the longest pause. Raises: BenchError."""
    request = {**case.work, "model": str(model)}
    mine: list[dict[str, float]] = []
    theirs: dict[str, list[float]] = {name: [] for name in case.settings} if peer else {}
    ours.ask({**request, "warm": True})
    for _ in range(repeats):
        mine.append(ours.ask(request))
        for name, values in theirs.items():
            assert peer is not None
            asked = {**request, "settings": case.settings[name]}
            peer.ask({**asked, "warm": True})
            values.append(peer.ask(asked)["value"])
    yield from rows_of(case, [turn["value"] for turn in mine], theirs)
    pause = statistics.median(turn["pause_ms"] for turn in mine)
    yield Row(f"{case.name}/pause_ms", pause, None, None, "ms", None)


def compare_lookup(case: Case, model: Path, ours: Worker, *, repeats: int) -> Iterator[Row]:
    """Yield the row of answers that quote: guessed ahead against token by token. Raises: BenchError."""
    request = {**case.work, "model": str(model)}
    values: dict[bool, list[float]] = {True: [], False: []}
    for round_ in range(repeats + 1):
        told = {speculates: ours.ask({**request, "speculates": speculates}) for speculates in values}
        if told[True]["texts"] != told[False]["texts"]:
            raise BenchError("an answer that was guessed ahead is another one")
        for speculates, measured in values.items() if round_ > 0 else ():
            measured.append(told[speculates]["value"])
    mine, plain = (statistics.median(values[speculates]) for speculates in (True, False))
    yield Row(case.name, mine, plain, "Quarry (speculation off)", case.unit, mine / plain)
