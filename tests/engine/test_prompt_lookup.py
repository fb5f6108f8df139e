"""Guesses that make answers faster and never other ones."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engine import _native as native
from engine.engine import Engine
from engine.generation import GenerationParams
from engine.prompt_lookup import PromptLookup, best_length, find_match
from engine.step_times import StepTimes

# A few rows cost what one does, many cost by the row; as on a machine that waits for its memory.
FLAT, STEEP = StepTimes(), StepTimes()
for rows in (1, 2, 4, 8, 16):
    FLAT.note(rows, 0.010 + 0.0005 * rows)
    STEEP.note(rows, 0.010 * rows)

TEXT = (
    "The billing service of the Harbour office was moved to a new machine on 14 March 2024. The move took "
    "four hours and eleven minutes, of which ninety minutes were spent waiting for the network team to open "
    "port 8443. Marta Lindqvist keeps the list of the customers concerned."
)


def tokens(values: Sequence[int]) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def guess(
    lookup: PromptLookup, ids: Sequence[int], *, times: StepTimes = FLAT, n_most: int = 99
) -> list[int]:
    return lookup.guess(tokens(ids), n_most=n_most, n_rows=1, n_expected=1, times=times).tolist()


# Finding.


@given(st.lists(st.integers(0, 2), min_size=1, max_size=60))
def test_the_longest_match_is_found_of_equal_ones_the_latest(ids: list[int]) -> None:
    def agreement(end: int) -> int:
        n = 0
        while n < min(end, 24) and ids[end - 1 - n] == ids[-1 - n]:
            n += 1
        return n

    matches = [(agreement(end), end) for end in range(1, len(ids))]
    n, at = max(matches, default=(0, 0))
    assert find_match(tokens(ids)) == ((at, n) if n >= 3 else (0, 0))


def test_what_followed_before_is_guessed() -> None:
    quoted = list(range(50, 70))
    assert guess(PromptLookup(), [1, 2, 3, *quoted, 9, 1, 2, 3])[0] == 50
    assert guess(PromptLookup(), [*quoted, 9, *quoted[:8]])[:3] == [58, 59, 60]
    assert guess(PromptLookup(), [1, 2, 9, 8, 7, 1, 2]) == []  # two tokens agree by chance
    assert guess(PromptLookup(), [1, 2, 3, 4, 5], n_most=3) == []
    assert len(guess(PromptLookup(), [*quoted, 9, *quoted[:8]], n_most=1)) == 1


# Paying.


def test_guesses_are_as_long_as_they_pay() -> None:
    assert best_length(0.95, 15, n_rows=1, n_expected=1, times=FLAT) == 15
    assert best_length(0.95, 4, n_rows=1, n_expected=1, times=FLAT) == 3
    assert best_length(0.30, 15, n_rows=1, n_expected=1, times=FLAT) in (1, 2, 3)
    assert best_length(0.02, 15, n_rows=1, n_expected=1, times=FLAT) == 0
    assert best_length(0.95, 15, n_rows=1, n_expected=1, times=STEEP) == 0


def test_guesses_that_fail_stop_and_those_that_would_have_come_true_begin_again() -> None:
    lookup = PromptLookup()
    ids = [*range(100, 900), 9, *range(100, 110)]
    lengths = []
    for i in range(30):  # every quotation is left at once
        lengths.append(len(guess(lookup, ids)))
        ids += [1000 + i, *range(100, 110)]
    assert lengths[0] > 1
    assert set(lengths[25:]) == {0}
    for _ in range(30):  # then one is kept to
        lengths.append(len(guess(lookup, ids)))
        ids += range(ids[-1] + 1, ids[-1] + 2 + lengths[-1])
    assert lengths[-1] > 5


def test_times_are_learned_and_forgotten() -> None:
    times = StepTimes()
    assert times.expect(1) == 0
    times.note(1, 0.01)
    assert times.expect(4) == pytest.approx(0.04)
    times.note(8, 9.0)  # the machine did something else
    times.note(512, 1.0)
    assert times.expect(1) == pytest.approx(0.01)
    assert times.expect(1024) == pytest.approx(2.0)
    assert times.expect(8) == pytest.approx(9.0)
    for _ in range(100):
        times.note(1, 0.02)
    assert times.expect(1) == pytest.approx(0.02)
    assert times.expect(8) == pytest.approx(0.02 + 0.98 * 7 / 511)
    assert times.expect(512) == pytest.approx(1.0)


# Never another answer.


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_guessed_steps_draw_what_single_steps_draw(tiny_models: Path, data: st.DataObject) -> None:
    decoder = native.Decoder(
        native.GgufFile(str(tiny_models / "llama-gqa-untied.gguf")), native.ThreadPool(1), cache_tokens=512
    )
    sampling = native.SamplingParams(
        temperature=data.draw(st.sampled_from([0.0, 0.5, 1.5])),
        top_p=data.draw(st.sampled_from([1.0, 0.9])),
        repetition_penalty=data.draw(st.sampled_from([1.0, 1.3])),
        penalty_window=-1,
        seed=data.draw(st.integers(0, 9)),
        n_logprobs=2,
    )
    prompt = data.draw(st.lists(st.integers(1, 200), min_size=1, max_size=70))

    def drawn(guesses: bool) -> list[tuple[int, float | None, list[tuple[int, float]]]]:
        sequence = decoder.new_sequence(sampling, "a")
        out: list[native.SampledToken] = []
        pending = prompt
        while len(out) < 48:
            ahead: list[int] = []
            if guesses and out:
                right = [token for token, *_ in alone[len(out) : len(out) + data.draw(st.integers(0, 20))]]
                ahead = right + data.draw(st.lists(st.integers(1, 200), max_size=3))
            (row,) = decoder.step([(sequence, tokens([*pending, *ahead]), 1 + len(ahead))])
            out += row
            pending = [row[-1].id]
            assert sequence.n_cached == len(prompt) + len(out) - 1
            assert sequence.n_blocks == -(-sequence.n_cached // 32)
        sequence.release()
        assert decoder.n_free_blocks == decoder.n_blocks
        return [(token.id, token.logprob, token.top_logprobs) for token in out[:48]]

    alone: list[tuple[int, float | None, list[tuple[int, float]]]] = []
    alone = drawn(False)
    assert drawn(True) == alone


def test_more_draws_than_tokens_are_refused(tiny_models: Path) -> None:
    file = native.GgufFile(str(tiny_models / "llama-gqa-untied.gguf"))
    decoder = native.Decoder(file, native.ThreadPool(1), cache_tokens=64)
    sequence = decoder.new_sequence(native.SamplingParams())
    with pytest.raises(ValueError, match="has 2 tokens and asks for 3 draws"):
        decoder.step([(sequence, tokens([1, 2]), 3)])


@pytest.fixture(scope="module")
def engines(starter_chat_gguf: Path) -> Iterator[list[Engine]]:
    opened = [
        Engine.open(
            chat_model=starter_chat_gguf,
            embedding_model=None,
            threads=2,
            cache_tokens=2048,
            speculates=speculates,
        )
        for speculates in (False, True)
    ]
    yield opened
    for engine in opened:
        engine.close()


@pytest.mark.parametrize(
    "params",
    [
        pytest.param({"temperature": 0}, id="greedy"),
        pytest.param({"temperature": 0.4, "seed": 5}, id="drawn"),
        pytest.param({"temperature": 0, "repetition_penalty": 1.05, "n_logprobs": 3}, id="penalties"),
        pytest.param({"temperature": 0, "stop": ("minutes were",)}, id="stop"),
        pytest.param({"temperature": 0, "max_tokens": 37}, id="length"),
    ],
)
def test_an_answer_that_quotes_is_guessed_and_stays_the_same(
    engines: list[Engine], params: dict[str, float]
) -> None:
    told = []
    for engine in engines:
        assert engine.chat is not None
        prompt = engine.chat.prompt_tokens([{"role": "user", "content": f"Repeat this text:\n\n{TEXT}"}])
        before = engine.status().scheduler.n_guessed_right
        generation = engine.chat.generate(prompt, GenerationParams(**{"max_tokens": 100, **params}))  # type: ignore[arg-type]
        deltas = list(generation)
        told.append(
            (
                "".join(delta.text for delta in deltas),
                [logprob for delta in deltas for logprob in delta.logprobs],
                deltas[-1].finish_reason,
                generation.n_completion_tokens,
            )
        )
        n_right = engine.status().scheduler.n_guessed_right - before
        assert (n_right > 0) == (engine is engines[1])
    assert told[0] == told[1]
    assert "Harbour office" in told[0][0]


def test_no_room_for_a_guess_puts_nobody_off(tiny_models: Path) -> None:
    """Two answers that fill the cache to its last block; the tiny model repeats itself."""
    engine = Engine.open(
        chat_model=tiny_models / "llama-gqa-untied.gguf", embedding_model=None, threads=1, cache_tokens=128
    )
    try:
        assert engine.chat is not None
        prompt = [5, 6, 7] * 10
        params = GenerationParams(temperature=0, max_tokens=33, logit_bias={5: 20.0, 6: 20.0, 7: 20.0})
        with engine._scheduler._work:
            generations = [engine.chat.generate(prompt, params) for _ in range(2)]
        ends = [list(generation)[-1].finish_reason for generation in generations]
        assert ends == ["length", "length"]
        assert engine.status().scheduler.n_guessed_tokens > 0
        assert engine.status().scheduler.n_preempted == 0
    finally:
        engine.close()
