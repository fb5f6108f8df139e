"""Beginnings that requests share: what is computed once is found again, by the same tenant only."""

from collections.abc import Iterator, Sequence
from itertools import count
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from numpy.typing import NDArray

from engine import _native as native
from engine.engine import Engine
from engine.generation import Generation, GenerationParams

GREEDY = native.SamplingParams(temperature=0.0)
LONG = [3 + i % 200 for i in range(100)]
N_BLOCKS = 8


def tokens(values: Sequence[int]) -> NDArray[np.int32]:
    return np.array(values, np.int32)


def open_decoder(
    folder: Path, *, cache_tokens: int = N_BLOCKS * 32, cache_type: str = "f16"
) -> native.Decoder:
    file = native.GgufFile(str(folder / "llama-gqa-untied.gguf"))
    return native.Decoder(file, native.ThreadPool(1), cache_tokens=cache_tokens, cache_type=cache_type)


@pytest.fixture
def decoder(tiny_models: Path) -> native.Decoder:
    return open_decoder(tiny_models)


def read(
    decoder: native.Decoder, ids: Sequence[int], tenant: str | None, *, n: int = 8
) -> tuple[list[int], int]:
    """The tokens after a prompt, and how many of its tokens were known."""
    sequence = decoder.new_sequence(GREEDY, tenant)
    n_known = sequence.reuse(tokens(ids[:-1]))
    out: list[int] = []
    pending = list(ids[n_known:])
    while len(out) < n:
        ((drawn,),) = decoder.step([(sequence, tokens(pending), 1)])
        out.append(drawn.id)
        pending = [drawn.id]
    sequence.release()
    return out, n_known


def test_a_beginning_is_read_once(decoder: native.Decoder) -> None:
    first, n_known = read(decoder, LONG, "a")
    assert n_known == 0
    assert read(decoder, LONG, "a") == (first, 96)
    assert read(decoder, LONG[:65], "a")[1] == 64
    assert read(decoder, LONG[:64], "a")[1] == 32  # the last token is fed, whatever is known
    assert read(decoder, [*LONG[:40], 1, 2, 3, *LONG[40:]], "a")[1] == 32
    assert read(decoder, LONG[1:], "a")[1] == 0
    assert decoder.n_free_blocks == decoder.n_blocks


def test_an_answer_is_the_beginning_of_the_next_turn(tiny_models: Path) -> None:
    decoder = open_decoder(tiny_models, cache_tokens=512)
    out, _ = read(decoder, LONG, "a", n=40)
    turn = [*LONG, *out, 7, 8, 9]
    fresh, _ = read(decoder, turn, None)
    assert read(decoder, turn, "a") == (fresh, 128)


def test_tenants_share_nothing(tiny_models: Path) -> None:
    decoder = open_decoder(tiny_models, cache_tokens=1024)
    alone, _ = read(decoder, LONG, "a")
    assert read(decoder, LONG, "b") == (alone, 0)
    assert read(decoder, LONG, "") == (alone, 0)
    assert read(decoder, LONG, None) == (alone, 0)
    assert read(decoder, LONG, None)[1] == 0
    assert read(decoder, LONG, "a") == (alone, 96)


def test_what_was_used_longest_ago_makes_room(decoder: native.Decoder) -> None:
    prompts = [[i, *LONG[:63]] for i in range(3, 6)]  # two full blocks each, and a third begun
    for prompt in prompts:
        read(decoder, prompt, "a")
    assert decoder.n_kept_blocks == 6
    assert read(decoder, prompts[0], "a")[1] == 32
    read(decoder, [9, *LONG], "a")  # four blocks, of which two are free
    assert read(decoder, [*prompts[0], 1], "a")[1] == 64
    # The end of the one used longest ago went first, then its beginning.
    assert read(decoder, [*prompts[1], 1], "a")[1] == 0
    assert decoder.n_free_blocks == decoder.n_blocks


def test_two_that_compute_the_same_keep_one_copy(decoder: native.Decoder) -> None:
    pair = [decoder.new_sequence(GREEDY, "a") for _ in range(2)]
    decoder.step([(sequence, tokens(LONG[:70]), 1) for sequence in pair])
    assert decoder.n_free_blocks == decoder.n_blocks - 2 - 2  # two shared, and one begun by each
    for sequence in pair:
        sequence.release()
    assert decoder.n_kept_blocks == 2


def test_what_is_read_is_not_taken_away(decoder: native.Decoder) -> None:
    alone, _ = read(decoder, LONG, None)
    reader = decoder.new_sequence(GREEDY, "a")
    decoder.step([(reader, tokens(LONG[:-1]), 0)])
    other = decoder.new_sequence(GREEDY, "a")
    assert other.reuse(tokens(LONG[:70])) == 64
    with pytest.raises(native.CacheFull, match="needs 5 cache blocks; 4 of 8 are free"):
        decoder.step([(other, tokens(range(1, 150)), 1)])
    decoder.step([(other, tokens(range(1, 129)), 1)])
    ((drawn,),) = decoder.step([(reader, tokens(LONG[-1:]), 1)])
    assert drawn.id == alone[0]


def test_forgetting_spares_who_runs_and_leaves_nothing(decoder: native.Decoder) -> None:
    alone, _ = read(decoder, LONG, "a")
    running = decoder.new_sequence(GREEDY, "a")
    assert running.reuse(tokens(LONG[:-1])) == 96
    decoder.forget_prefixes()
    assert decoder.n_kept_blocks == 0
    assert read(decoder, LONG[:-4], "a")[1] == 0
    decoder.forget_prefixes()
    out = []
    pending = LONG[96:]
    while len(out) < 8:
        ((drawn,),) = decoder.step([(running, tokens(pending), 1)])
        out.append(drawn.id)
        pending = [drawn.id]
    assert out == alone
    running.release()
    assert (decoder.n_kept_blocks, decoder.n_free_blocks) == (0, decoder.n_blocks)
    assert read(decoder, LONG, "a") == (alone, 0)
    assert read(decoder, LONG, "a") == (alone, 96)


def test_penalties_know_the_prompt_that_was_not_fed(decoder: native.Decoder) -> None:
    sampling = native.SamplingParams(temperature=0.0, repetition_penalty=3.0, penalty_window=-1)

    def drawn(tenant: str | None) -> list[int]:
        sequence = decoder.new_sequence(sampling, tenant)
        n_known = sequence.reuse(tokens(LONG[:-1]))
        assert n_known == (96 if tenant else 0)
        out: list[int] = []
        pending = LONG[n_known:]
        while len(out) < 20:
            ((token,),) = decoder.step([(sequence, tokens(pending), 1)])
            out.append(token.id)
            pending = [token.id]
        sequence.release()
        return out

    alone = drawn(None)
    read(decoder, LONG, "a")
    assert drawn("a") == alone


def test_a_block_from_outside_is_as_good_as_one_computed(tiny_models: Path) -> None:
    source, target = open_decoder(tiny_models), open_decoder(tiny_models)
    alone, _ = read(source, LONG, "a")
    keeper = source.new_sequence(GREEDY, "a")
    assert keeper.reuse(tokens(LONG)) == 96
    blocks = [np.frombuffer(keeper.copy_block(i), np.uint8) for i in range(3)]
    assert {len(block) for block in blocks} == {source.block_bytes}
    restored = target.new_sequence(GREEDY, "a")
    for i, block in enumerate(blocks):
        assert restored.restore(tokens(LONG[32 * i : 32 * i + 32]), block)
    assert (restored.n_cached, restored.n_blocks) == (96, 3)
    restored.release()
    assert read(target, LONG, "a") == (alone, 96)
    with pytest.raises(ValueError, match="31 tokens and"):
        restored.restore(tokens(LONG[:31]), blocks[0])
    with pytest.raises(ValueError, match="must have 32 and"):
        restored.restore(tokens(LONG[:32]), blocks[0][1:])
    with pytest.raises(ValueError, match="block 3 is not one of the 3 full ones"):
        keeper.copy_block(3)
    target.step([(restored, tokens([5]), 0)])
    with pytest.raises(ValueError, match="behind one that is not full"):
        restored.restore(tokens(LONG[:32]), blocks[0])
    others = [target.new_sequence(GREEDY, None) for _ in range(7)]
    target.step([(other, tokens([5]), 0) for other in others])
    fresh = target.new_sequence(GREEDY, "a")
    assert fresh.reuse(tokens(LONG[:32])) == 0  # given up for the others
    assert not fresh.restore(tokens(LONG[:32]), blocks[0])


def common(one: Sequence[int], other: Sequence[int]) -> int:
    """Count the tokens that both begin with."""
    return next(
        (i for i, pair in enumerate(zip(one, other, strict=False)) if pair[0] != pair[1]),
        min(len(one), len(other)),
    )


class Requests(RuleBasedStateMachine):
    """Requests of two tenants come, read, write and leave in any order, over a cache that is too small."""

    folder: Path
    cache_type: str
    expected: dict[tuple[int, ...], int]  # the token after a beginning, computed on its own

    @initialize()
    def open(self) -> None:
        self.decoder = open_decoder(self.folder, cache_type=self.cache_type)
        self.reference = open_decoder(self.folder, cache_type=self.cache_type)
        self.live: dict[int, tuple[native.Sequence, list[int], str | None]] = {}
        self.read_by: dict[str, list[list[int]]] = {"a": [], "b": []}  # since all was forgotten
        self.numbers = count()

    @rule(tenant=st.sampled_from(["a", "b", None]), kind=st.integers(0, 2), n=st.integers(1, 100))
    def begin(self, tenant: str | None, kind: int, n: int) -> None:
        prompt = [7] * (32 * kind) + LONG[:n]
        sequence = self.decoder.new_sequence(GREEDY, tenant)
        n_known = sequence.reuse(tokens(prompt[:-1]))
        assert n_known % 32 == 0
        assert n_known < len(prompt)
        own = self.read_by[tenant] if tenant else []
        assert n_known <= max((common(prompt, ids) for ids in own), default=0)
        if not self.feed(sequence, prompt, prompt[n_known:], tenant):
            sequence.release()

    @rule(which=st.integers(0, 9), n=st.integers(1, 40))
    def go_on(self, which: int, n: int) -> None:
        if self.live:
            number = sorted(self.live)[which % len(self.live)]
            sequence, ids, tenant = self.live.pop(number)
            if len(ids) + n > 200 or not self.feed(sequence, ids + LONG[:n], LONG[:n], tenant):
                sequence.release()

    @rule(which=st.integers(0, 9))
    def leave(self, which: int) -> None:
        if self.live:
            self.live.pop(sorted(self.live)[which % len(self.live)])[0].release()

    @rule()
    def forget(self) -> None:
        self.decoder.forget_prefixes()
        assert self.decoder.n_kept_blocks == 0
        self.read_by = {"a": [], "b": []}

    def feed(self, sequence: native.Sequence, ids: list[int], new: list[int], tenant: str | None) -> bool:
        try:
            ((drawn,),) = self.decoder.step([(sequence, tokens(new), 1)])
        except native.CacheFull:
            return False
        key = tuple(ids)
        if key not in self.expected:
            logits = self.reference.logits(tokens(ids))
            self.expected[key] = int(logits[-1].argmax())
        assert drawn.id == self.expected[key]
        self.live[next(self.numbers)] = (sequence, ids, tenant)
        if tenant:
            self.read_by[tenant].append(ids)
        return True

    @invariant()
    def counts_add_up(self) -> None:
        if not hasattr(self, "decoder"):
            return
        held = sum(sequence.n_blocks for sequence, *_ in self.live.values())
        used = self.decoder.n_blocks - self.decoder.n_free_blocks
        assert used <= held  # shared blocks count once
        assert 0 <= self.decoder.n_kept_blocks <= self.decoder.n_free_blocks <= self.decoder.n_blocks
        assert bool(used) == bool(self.live)

    def teardown(self) -> None:
        for sequence, *_ in getattr(self, "live", {}).values():
            sequence.release()
        if hasattr(self, "decoder"):
            assert self.decoder.n_free_blocks == self.decoder.n_blocks


@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
def test_requests_in_any_order_get_what_they_get_alone(tiny_models: Path, cache_type: str) -> None:
    Requests.folder, Requests.cache_type = tiny_models, cache_type
    Requests.expected = {}
    run_state_machine_as_test(  # type: ignore[no-untyped-call]  # hypothesis leaves it so
        Requests, settings=settings(max_examples=40, stateful_step_count=30, deadline=None)
    )


# Through the engine.


@pytest.fixture
def engine(tiny_models: Path) -> Iterator[Engine]:
    engine = Engine.open(
        chat_model=tiny_models / "llama-gqa-untied.gguf", embedding_model=None, threads=1, cache_tokens=512
    )
    yield engine
    engine.close()


def generate(engine: Engine, prompt: Sequence[int], tenant: str | None) -> Generation:
    assert engine.chat is not None
    return engine.chat.generate(prompt, GenerationParams(max_tokens=8, temperature=0, tenant=tenant))


def test_a_request_tells_what_it_did_not_have_to_read(engine: Engine) -> None:
    told = []
    for tenant in ("a", "a", "b", None, None):
        generation = generate(engine, LONG, tenant)
        told.append(("".join(delta.text for delta in generation), generation.n_cached_tokens))
    assert [n for _, n in told] == [0, 96, 0, 0, 0]
    assert len({text for text, _ in told}) == 1
    status = engine.status().scheduler
    assert (status.n_prompt_tokens, status.n_reused_tokens) == (404, 96)
    assert status.n_kept_blocks == 6
    assert status.n_free_blocks == status.n_blocks
    engine.forget_prefixes()
    assert engine.status().scheduler.n_kept_blocks == 0


def test_requests_at_once_read_a_common_beginning_once(engine: Engine) -> None:
    with engine._scheduler._work:
        generations = [generate(engine, [*LONG, i], "a") for i in range(4)]
    assert all(list(generation)[-1].finish_reason == "length" for generation in generations)
    assert sorted(generation.n_cached_tokens for generation in generations) == [0, 96, 96, 96]
    assert engine.status().scheduler.n_prompt_tokens == 101 + 3 * 5
