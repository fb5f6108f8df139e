"""Many streams that are cut off in every phase, round after round: nothing stays behind.

`make test` runs a short version; `make soak` the whole: 500 streams, 300 of them cut off, ten rounds.
"""

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.engine import Engine
from engine.generation import Generation, GenerationParams

IS_WHOLE = bool(os.environ.get("QUARRY_SOAK"))
N_STREAMS, N_ROUNDS = (500, 10) if IS_WHOLE else (100, 3)
FREED_WITHIN_S = 2.0
GROWTH_BYTES = 16 << 20  # between the second round and the last


@pytest.fixture
def engine(starter_chat_gguf: Path) -> Iterator[Engine]:
    engine = Engine.open(
        chat_model=starter_chat_gguf,
        embedding_model=None,
        threads=2,
        cache_tokens=4096,
        queue_limit=N_STREAMS,
    )
    yield engine
    engine.close()


def resident_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def start(engine: Engine, i: int) -> Generation:
    assert engine.chat is not None
    never_ends = dict.fromkeys(engine._scheduler._tokenizer.eos_ids, -1e5)  # type: ignore[union-attr]  # a chat model is open
    prompt = [5 + (i * 7 + j) % 1000 for j in range(200 if i % 5 == 1 else 5)]
    params = GenerationParams(temperature=0, max_tokens=4, logit_bias=never_ends, tenant=f"key-{i % 3}")
    return engine.chat.generate(prompt, params)


async def run(engine: Engine, i: int) -> str | None:
    """Cut off while it waits, while its prompt is read or in its answer; or read to its end."""
    stream = start(engine, i)
    if i % 5 == 0:
        stream.cancel()
    if i % 5 == 1:
        await asyncio.sleep(0)
        stream.cancel()
    last = None
    async for delta in stream:
        last = delta.finish_reason
        if i % 5 == 2 and last is None:
            stream.cancel()
    return last


@pytest.mark.timeout(1800 if IS_WHOLE else 300)
async def test_streams_that_are_cut_off_leave_nothing_behind(engine: Engine) -> None:
    resident = []
    for _ in range(N_ROUNDS):
        ends = await asyncio.gather(*(run(engine, i) for i in range(N_STREAMS)))
        whole = [ends[i] for i in range(N_STREAMS) if i % 5 >= 3]
        assert whole == ["length"] * (N_STREAMS * 2 // 5)
        cut = {ends[i] for i in range(N_STREAMS) if i % 5 < 2}
        assert cut == {"cancelled"}
        # All at once, in whatever they are doing, and nobody reads on.
        left = [start(engine, i) for i in range(N_STREAMS * 3 // 5)]
        cut_at = time.perf_counter()
        for stream in left:
            stream.cancel()
        for stream in left:
            assert [delta.finish_reason for delta in stream][-1] in {"cancelled", "length"}
        freed_after = time.perf_counter() - cut_at
        status = engine.status().scheduler
        assert (status.n_running, status.n_waiting) == (0, 0)
        assert status.n_free_blocks == status.n_blocks
        resident.append(resident_bytes())
        if IS_WHOLE:
            assert freed_after < FREED_WITHIN_S
            print(f"freed after {freed_after:.3f} s, {resident[-1] / 2**20:.0f} MiB resident")
    assert resident[-1] - resident[1] < GROWTH_BYTES
