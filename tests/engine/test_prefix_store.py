"""Beginnings that are kept on disk: found again after a restart, by the same tenant and model only."""

import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.engine import Engine
from engine.generation import GenerationParams
from engine.kept_prefixes import cache_fingerprint
from engine.prefix_store import MAGIC, PrefixStore

LIMIT = 64 << 20
LONG = [3 + i % 200 for i in range(200)]
OTHER = [7, *LONG]


@contextmanager
def opened(path: Path, folder: Path | None, *, limit: int = LIMIT, **more: Any) -> Iterator[Engine]:
    engine = Engine.open(
        chat_model=path, embedding_model=None, threads=1, cache_tokens=more.pop("cache_tokens", 2048), **more
    )
    try:
        if folder is not None:
            engine.keep_prefixes_in(folder, limit_bytes=limit)
        yield engine
    finally:
        engine.close()


@pytest.fixture
def model(tiny_models: Path) -> Path:
    return tiny_models / "llama-gqa-untied.gguf"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "prefixes"


def read(
    engine: Engine, prompt: Sequence[int], tenant: str | None = "a", *, n: int = 8
) -> tuple[list[str], int]:
    """The answer with its probabilities, and how many tokens of the prompt were known."""
    assert engine.chat is not None
    params = GenerationParams(max_tokens=n, temperature=0, tenant=tenant, n_logprobs=2)
    generation = engine.chat.generate(prompt, params)
    told = [repr((d.text, d.logprobs)) for d in generation]
    return told, generation.n_cached_tokens


def fill(model: Path, folder: Path, *prompts: Sequence[int], **more: Any) -> None:
    """Ask each prompt twice, so that it is kept."""
    with opened(model, folder, **more) as engine:
        for prompt in prompts or (LONG,):
            read(engine, prompt)
            read(engine, prompt)


def blocks(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if len(path.name) == 64)


# Found again.


@pytest.mark.parametrize("cache_type", ["f16", "q8_0"])
def test_what_was_asked_for_twice_is_known_after_a_restart(
    model: Path, folder: Path, cache_type: Any
) -> None:
    with opened(model, None, cache_type=cache_type) as engine:
        alone = {len(p): read(engine, p, None)[0] for p in (LONG, LONG[:100], [*LONG, 5])}
    with opened(model, folder, cache_type=cache_type) as engine:
        assert read(engine, LONG) == (alone[200], 0)
        assert not blocks(folder)
        assert read(engine, LONG) == (alone[200], 192)
        assert engine.status().scheduler.n_restored_tokens == 0
    assert len(blocks(folder)) == 6
    with opened(model, folder, cache_type=cache_type) as engine:
        assert read(engine, LONG[:100]) == (alone[100], 96)
        assert engine.status().scheduler.n_restored_tokens == 96
        assert read(engine, [*LONG, 5]) == (alone[201], 192)
        assert engine.status().scheduler.n_restored_tokens == 192
        assert read(engine, [*LONG, 5]) == (alone[201], 192)
        assert engine.status().scheduler.n_restored_tokens == 192  # by now in memory
    assert len(blocks(folder)) == 6


def test_smollm2_goes_on_as_if_it_had_read(starter_chat_gguf: Path, folder: Path) -> None:
    def ask(engine: Engine, question: str) -> tuple[list[str], int]:
        assert engine.chat is not None
        system = "You answer briefly. " + "The office opens at eight and closes at five. " * 20
        messages = [{"role": "system", "content": system}, {"role": "user", "content": question}]
        return read(engine, engine.chat.prompt_tokens(messages), n=24)

    questions = ["When does the office open?", "Why?", "Write a poem about doors."]
    with opened(starter_chat_gguf, None) as engine:
        alone = [ask(engine, question)[0] for question in questions]
    with opened(starter_chat_gguf, folder) as engine:
        assert [ask(engine, question)[0] for question in questions] == alone
    with opened(starter_chat_gguf, folder) as engine:
        again, n_known = ask(engine, questions[2])
        assert (again, n_known) == (alone[2], engine.status().scheduler.n_restored_tokens)
        assert n_known >= 192


def test_what_memory_gave_up_comes_back_from_disk(model: Path, folder: Path) -> None:
    with opened(model, folder, cache_tokens=256) as engine:
        first = [read(engine, LONG)[0] for _ in range(2)]
        read(engine, OTHER)
        assert engine._store is not None
        engine._store.flush()
        assert read(engine, LONG) == (first[0], 192)
        assert engine.status().scheduler.n_restored_tokens >= 128  # the very first may still be in memory


def test_a_restart_between_many_requests_changes_no_answer(model: Path, folder: Path) -> None:
    """Prompts that share beginnings of any length, over a cache and a folder that are both too small."""
    prompts = [[*LONG[: 40 * i], 9 + i, *LONG[: 150 - 30 * i]] for i in range(5)]
    with opened(model, None) as engine:
        alone = [read(engine, prompt, None)[0] for prompt in prompts]
    n_restored = 0
    for _ in range(3):
        with opened(model, folder, cache_tokens=320, limit=100_000) as engine:
            for i in (0, 0, 3, 1, 1, 4, 2, 4, 3, 3, 0, 2):
                assert read(engine, prompts[i])[0] == alone[i]
            n_restored += engine.status().scheduler.n_restored_tokens
        assert sum(path.stat().st_size for path in blocks(folder)) <= 100_000
    assert n_restored > 0


# Not found.


def test_nobody_else_finds_it(model: Path, folder: Path) -> None:
    fill(model, folder)
    with opened(model, folder) as engine:
        for tenant in ("b", "", None, "aa"):
            assert read(engine, LONG, tenant)[1] == 0
        assert engine.status().scheduler.n_restored_tokens == 0
        assert read(engine, LONG[1:])[1] == 0
        assert read(engine, LONG)[1] == 192


def test_another_model_cache_type_or_engine_finds_nothing(model: Path, folder: Path, tmp_path: Path) -> None:
    fill(model, folder)
    with opened(model, folder, cache_type="q8_0") as engine:
        assert read(engine, LONG)[1] == 0
    with opened(model, folder, instruction_set="generic") as engine:
        assert read(engine, LONG)[1] == 0
    data = bytearray(model.read_bytes())
    data[-100] ^= 1
    changed = tmp_path / model.name
    changed.write_bytes(data)
    with opened(changed, folder) as engine:
        assert read(engine, LONG)[1] == 0
    with opened(model, folder) as engine:
        assert read(engine, LONG)[1] == 192
    prints = {cache_fingerprint(path, "avx2", kind) for path in (model, changed) for kind in ("f16", "q8_0")}
    assert len(prints) == 4


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-5] ^= 4
    path.write_bytes(data)


def swap(path: Path) -> None:
    path.write_bytes(next(p for p in blocks(path.parent) if p != path).read_bytes())


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(flip, id="one bit"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes()[:-1]), id="cut"),
        pytest.param(lambda path: path.write_bytes(b""), id="empty"),
        pytest.param(lambda path: path.write_bytes(path.read_bytes() + b"x"), id="longer"),
        pytest.param(
            lambda path: path.write_bytes(MAGIC + path.read_bytes()[len(MAGIC) :][::-1]), id="made up"
        ),
        pytest.param(swap, id="another block"),
        pytest.param(lambda path: path.unlink(), id="gone"),
    ],
)
def test_a_damaged_file_is_removed_and_computed_anew(
    model: Path, folder: Path, damage: Callable[[Path], object]
) -> None:
    with opened(model, None) as engine:
        alone, _ = read(engine, LONG, None)
    fill(model, folder)
    kept = {path: path.read_bytes() for path in blocks(folder)}
    for path in kept:
        with opened(model, folder) as engine:
            damage(path)
            told, n_known = read(engine, LONG)
            assert told == alone
            assert n_known < 192
            assert engine._store is not None
            assert engine._store.status().n_damaged == 1
            assert read(engine, LONG)[1] == 192
        assert {path: path.read_bytes() for path in blocks(folder)} == kept  # computed alike


def test_what_others_put_into_the_folder_is_removed(model: Path, folder: Path, tmp_path: Path) -> None:
    fill(model, folder)
    outside = tmp_path / "outside"
    outside.write_text("not ours")
    (folder / "notes.txt").write_text("?")
    (folder / ("a" * 64 + ".part")).write_bytes(b"half")
    (folder / ("b" * 64)).symlink_to(outside)
    (folder / ("c" * 64)).write_bytes(blocks(folder)[0].read_bytes())
    (folder / "deep").mkdir()
    with opened(model, folder) as engine:
        assert read(engine, LONG)[1] == 192
    names = {path.name for path in folder.iterdir()}
    assert names - {path.name for path in blocks(folder)} == {"secret", "deep"}
    assert len(blocks(folder)) == 7  # nobody has asked for the copy yet
    assert outside.read_text() == "not ours"


def test_without_its_key_nothing_is_kept(model: Path, folder: Path) -> None:
    for lost in (lambda path: path.unlink(), lambda path: path.write_bytes(b"short")):
        fill(model, folder)
        lost(folder / "secret")  # type: ignore[no-untyped-call]
        with opened(model, folder) as engine:
            assert not blocks(folder)
            assert read(engine, LONG)[1] == 0


# Bounds.


def test_the_folder_is_bounded_and_the_end_of_the_oldest_goes_first(model: Path, folder: Path) -> None:
    fill(model, folder)
    size = blocks(folder)[0].stat().st_size
    limit = 8 * size
    with opened(model, folder, limit=limit) as engine:
        for _ in range(2):
            read(engine, [9, *LONG[:128]])  # four blocks more: two too many
    assert len(blocks(folder)) == 8
    with opened(model, folder, limit=limit) as engine:
        assert read(engine, LONG)[1] == 128
    with opened(model, folder, limit=3 * size):
        assert len(blocks(folder)) == 3
    with opened(model, folder, limit=0) as engine:
        assert list(folder.iterdir()) == []
        assert [read(engine, LONG)[1] for _ in range(2)] == [0, 192]
    assert list(folder.iterdir()) == []


def test_short_beginnings_are_not_worth_a_file(model: Path, folder: Path) -> None:
    fill(model, folder, LONG[:120])
    assert not blocks(folder)


def test_a_disk_that_takes_nothing_costs_no_answer(
    model: Path, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with opened(model, folder) as engine:
        first = read(engine, LONG)
        shutil.rmtree(folder)
        folder.write_text("a file where the folder was")
        assert read(engine, LONG) == (first[0], 192)
        assert engine._store is not None
        engine._store.flush()
        assert "cannot be kept on disk: Not a directory" in caplog.text
        assert read(engine, LONG) == (first[0], 192)
    with opened(model, folder) as engine:
        assert read(engine, LONG)[1] == 0
    assert "are not kept" in caplog.text


# Nobody else's business, and gone when asked.


def test_files_are_the_users_own_and_tell_no_prompt(model: Path, folder: Path) -> None:
    fill(model, folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}
    spelled = [
        np.array(LONG[at : at + 8], kind).tobytes() for at in range(190) for kind in ("<i4", "<u2", "u1")
    ]
    for path in folder.iterdir():
        data = path.read_bytes()
        assert not any(ids in data for ids in spelled)


def test_forgetting_removes_every_file_and_what_would_become_one(model: Path, folder: Path) -> None:
    fill(model, folder)
    secret = (folder / "secret").read_bytes()
    with opened(model, folder) as engine:
        assert engine.chat is not None
        params = GenerationParams(
            max_tokens=600, temperature=0, tenant="a", logit_bias=dict.fromkeys(engine.chat.end_ids, -1e5)
        )
        running = engine.chat.generate(LONG, params)
        deltas = iter(running)
        next(deltas)
        assert running.n_cached_tokens == 192
        engine.forget_prefixes()
        assert [path.name for path in folder.iterdir()] == ["secret"]
        assert (folder / "secret").read_bytes() != secret
        running.cancel()
        list(deltas)
        whole = engine.chat.generate(LONG, params)
        next(iter(whole))
        assert whole.n_cached_tokens == 0
        whole.cancel()
    assert not blocks(folder)
    with opened(model, folder) as engine:
        assert read(engine, LONG)[1] == 0


def test_a_request_from_before_is_not_kept_after_all_was_forgotten(model: Path, folder: Path) -> None:
    with opened(model, folder) as engine:
        assert engine.chat is not None
        read(engine, LONG)
        params = GenerationParams(
            max_tokens=60, temperature=0, tenant="a", logit_bias=dict.fromkeys(engine.chat.end_ids, -1e5)
        )
        running = engine.chat.generate(LONG, params)
        deltas = iter(running)
        next(deltas)
        engine.forget_prefixes()
        assert list(deltas)[-1].finish_reason == "length"
    assert not blocks(folder)


def test_many_threads_write_read_and_forget(folder: Path) -> None:
    store = PrefixStore(folder, model=b"m", block_bytes=1000, limit_bytes=20_000)
    tokens = np.arange(64 * 32, dtype=np.int32)
    names = list(store.keys("a", tokens, 32))
    assert len(set(names)) == 64
    until = time.monotonic() + 1.0
    n_read = n_rounds = 0
    while time.monotonic() < until:
        store.keep(names, {name: bytes([i]) * 1000 for i, name in enumerate(names)})
        if n_rounds % 2:
            store.flush()  # else reading is over before the other thread has begun to write
        n_rounds += 1
        for i, name in enumerate(names):
            block = store.read(name)
            assert block in (None, bytes([i]) * 1000)
            n_read += block is not None
        store.forget()
        assert [path.name for path in folder.iterdir()] == ["secret"]
    store.close()
    assert n_read > 0
    assert store.status().n_damaged == 0
