"""An answer is the same whoever is served besides.

Alone or in company, on one thread or two, with and without what the cache knows, with and without guesses.
"""

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.engine import Engine
from engine.generation import Generation, GenerationParams

Open = Callable[[int, bool], Engine]

requests = st.lists(
    st.tuples(
        st.integers(0, 2),  # beginning
        st.integers(1, 60),  # tokens of it
        st.lists(st.integers(5, 200), min_size=1, max_size=12),  # then these
        st.sampled_from(["a", "b", None]),
        st.sampled_from([0.0, 0.0, 0.8]),
    ),
    min_size=1,
    max_size=5,
)


@pytest.fixture(scope="module", params=["llama-gqa-untied", "qwen3", "starter"])
def engines(request: pytest.FixtureRequest, tiny_models: Path, starter_chat_gguf: Path) -> "list[Engine]":
    """A plain engine on one thread; then on one and on two threads, with guesses."""
    path = starter_chat_gguf if request.param == "starter" else tiny_models / f"{request.param}.gguf"
    opened = [
        Engine.open(chat_model=path, embedding_model=None, threads=n, cache_tokens=256, speculates=speculates)
        for n, speculates in ((1, False), (1, True), (2, True))
    ]
    for engine in opened:
        request.addfinalizer(engine.close)  # noqa: PT021 - three of them, none of which waits for another
    return opened


def start(engine: Engine, prompt: list[int], tenant: str | None, temperature: float) -> Generation:
    assert engine.chat is not None
    params = GenerationParams(max_tokens=24, temperature=temperature, seed=3, tenant=tenant)
    return engine.chat.generate(prompt, params)


def text(generation: Generation) -> str:
    return "".join(delta.text for delta in generation)


@settings(max_examples=6, deadline=None)
@given(asked=requests)
def test_company_threads_prefixes_and_guesses_change_no_answer(
    engines: list[Engine],
    asked: list[tuple[int, int, list[int], str | None, float]],
) -> None:
    plain, *others = engines
    prompts = [
        ([9 + kind + (i % 5) * 3 for i in range(n)] + end, tenant, temperature)
        for kind, n, end, tenant, temperature in asked
    ]
    alone = [text(start(plain, prompt, None, temperature)) for prompt, _, temperature in prompts]
    for engine in others:
        with engine._scheduler._work:
            together = [start(engine, *request) for request in prompts]
        assert [text(generation) for generation in together] == alone
        assert [text(start(engine, *request)) for request in prompts] == alone
        status = engine.status().scheduler
        assert status.n_free_blocks == status.n_blocks
