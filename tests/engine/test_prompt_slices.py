"""What a step reads beside those who write: on machines of any speed, disturbed or not, nobody waits long."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from engine import _native
from engine.engine import Engine
from engine.generation import GenerationParams
from engine.prompt_slices import PlannedStep, PromptSlices

N_CHATS, N_PROMPT = 8, 2000


def seconds(n_rows: int, n_keys: int) -> float:
    """As a model of 1.5 B weights takes on two cores."""
    return 0.02 + 0.0027 * n_rows + 3.5e-7 * n_keys


def read_prompts(
    slices: PromptSlices, *, slowness: float, disturbances: list[float], n_writing: int = 1
) -> list[tuple[int, float, float]]:
    """Read prompts one after the other, each of which then writes: tokens, seconds undisturbed, seconds."""
    draw = random.Random(0)
    steps = []
    for n_writing_now in range(n_writing, N_CHATS):
        n_cached = 0
        while n_cached < N_PROMPT:
            step = PlannedStep(n_writing_now, n_writing_now * N_PROMPT, reads=False, writes=n_writing_now > 0)
            n = slices.choose(min(512, N_PROMPT - n_cached), n_cached, step)
            assert n > 0
            n_rows, n_keys = step.n_rows + n, step.n_keys + n * n_cached + n * (n + 1) // 2
            undisturbed = slowness * seconds(n_rows, n_keys)
            took = undisturbed * draw.choice(disturbances)
            slices.note(n_rows, n_keys, took)
            steps.append((n, undisturbed, took))
            n_cached += n
    return steps


@pytest.mark.parametrize("slowness", [0.02, 0.3, 1.0, 2.0], ids=["tiny", "fast", "usual", "slow"])
@pytest.mark.parametrize(
    "known", [[], [(1, 2000)], [(512, 131_000)] * 4], ids=["nothing", "one row", "alone"]
)
def test_nobody_waits_long(slowness: float, known: list[tuple[int, int]]) -> None:
    slices = PromptSlices()
    for n_rows, n_keys in known:
        slices.note(n_rows, n_keys, slowness * seconds(n_rows, n_keys))
    steps = read_prompts(slices, slowness=slowness, disturbances=[1, 1, 1, 1.05, 1.15, 1.4])
    assert max(took for _, _, took in steps) < 0.3
    # Nor are slices shorter than need be.
    mean_tokens, _, mean_seconds = (sum(values) / len(steps) for values in zip(*steps, strict=True))
    assert mean_seconds > 0.1 or mean_tokens > 250


@pytest.mark.parametrize("slowness", [0.3, 1.0], ids=["fast", "usual"])
def test_where_steps_take_twice_as_long_at_times_they_are_shorter(slowness: float) -> None:
    undisturbed = read_prompts(PromptSlices(), slowness=slowness, disturbances=[1])
    disturbed = read_prompts(PromptSlices(), slowness=slowness, disturbances=[1, 1, 1, 1.5, 2])
    late = [took for _, _, took in disturbed if took > 0.3]
    assert len(late) < 0.02 * len(disturbed)
    assert max(took for _, _, took in disturbed) < 0.4
    mean = [sum(step[1] for step in steps) / len(steps) for steps in (disturbed, undisturbed)]
    assert mean[0] < 0.95 * mean[1]


def test_a_machine_that_is_too_slow_goes_on_by_the_least() -> None:
    steps = read_prompts(PromptSlices(), slowness=20, disturbances=[1])
    assert {n for n, _, _ in steps} == {16}


def test_who_is_alone_reads_in_long_steps() -> None:
    slices = PromptSlices()
    alone = PlannedStep(0, 0, reads=False, writes=False)
    assert slices.choose(2000, 0, alone) == 64  # nothing is known
    slices.note(64, 2_000, seconds(64, 2_000))
    # One step does not tell what rows cost.
    assert slices.choose(2000, 0, alone) == 256
    for n in (256, 200):
        slices.note(n, n * n // 2, seconds(n, n * n // 2))
    n = slices.choose(512, 0, alone)
    assert 0.8 < seconds(n, n * n // 2) < 1.0


def test_a_second_prompt_fills_what_the_first_leaves() -> None:
    slices = PromptSlices()
    for n in (64, 30, 60, 45):
        slices.note(n, n * 30, seconds(n, n * 30))
    first = PlannedStep(4, 100, reads=False, writes=True)
    n = slices.choose(20, 0, first)
    assert n == 20
    n_more = slices.choose(512, 0, PlannedStep(24, 300, reads=True, writes=True))
    assert 8 <= n_more <= 28
    assert slices.choose(512, 0, PlannedStep(60, 300, reads=True, writes=True)) == 0


# Through the engine, with a real model.


class Recorder:
    """A decoder that notes the rows of every step."""

    def __init__(self, decoder: _native.Decoder) -> None:
        self._decoder = decoder
        self.rows: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._decoder, name)

    def step(self, batch: list[Any]) -> Any:
        self.rows.append(sum(len(tokens) for _, tokens, _ in batch))
        return self._decoder.step(batch)


@contextmanager
def opened(path: Path, folder: Path) -> Iterator[tuple[Engine, Recorder]]:
    engine = Engine.open(
        chat_model=path,
        embedding_model=None,
        threads=2,
        cache_tokens=4096,
        speculates=False,
    )
    try:
        engine.keep_prefixes_in(folder, limit_bytes=64 << 20)
        assert engine._scheduler._decoder is not None
        recorder = Recorder(engine._scheduler._decoder)
        engine._scheduler._decoder = recorder  # type: ignore[assignment]  # it is one in all that is used
        yield engine, recorder
    finally:
        engine.close()


def test_a_prompt_from_disk_does_not_make_the_next_one_look_cheap(
    starter_chat_gguf: Path, tmp_path: Path
) -> None:
    known = [5 + i % 1000 for i in range(193)]  # six blocks and the token that is always fed
    other = [7 + i % 900 for i in range(700)]

    def ask(engine: Engine, prompt: list[int], n: int) -> Any:
        assert engine.chat is not None
        bias = dict.fromkeys(engine.chat.end_ids, -1e5)
        params = GenerationParams(max_tokens=n, temperature=0, tenant="a", logit_bias=bias)
        return engine.chat.generate(prompt, params)

    with opened(starter_chat_gguf, tmp_path) as (engine, _):
        for _ in range(2):
            list(ask(engine, known, 1))
    with opened(starter_chat_gguf, tmp_path) as (engine, recorder):
        stream = ask(engine, known, 1500)
        pieces = iter(stream)
        next(pieces)
        assert stream.n_cached_tokens == 192
        list(ask(engine, other, 1))
        stream.cancel()
        list(pieces)
    assert recorder.rows[0] == 1
    beside = [n for n in recorder.rows if n > 1]
    assert sum(n - 1 for n in beside) == len(other)
    longest = 0
    for n in beside:  # at first the least, then no more than twice as many as were measured
        assert n <= max(1 + 16, 2 * longest)
        longest = max(longest, n)
