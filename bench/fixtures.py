"""The model files that are measured; made once, kept in bench/cache."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from bench.cases import STARTER_CHAT, STARTER_EMBEDDING
from bench.random_models import SHAPES, write
from bench.worker import ROOT, BenchError
from engine.model_store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from bench.worker import Worker

CACHE = ROOT / "bench" / "cache"
STARTER_PRESETS = {STARTER_CHAT: "starter-chat", STARTER_EMBEDDING: "starter-embedding"}


def models_folder() -> Path:
    """Return the folder of the starter models, the one that the tests use."""
    return Path(os.environ.get("QUARRY_MODELS_DIR") or ROOT / "models")


def model_path(name: str, *, peer: Callable[[], Worker] | None) -> Path:
    """Return the file of a model, making it where it is not there. Raises: BenchError, DownloadFailed."""
    if name in STARTER_PRESETS:
        return ModelStore(models_folder()).pull(STARTER_PRESETS[name])
    path = CACHE / f"{name}.gguf"
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".part")
        _make_random(name, unfinished, peer)
        unfinished.rename(path)
    return path


def _make_random(name: str, out: Path, peer: Callable[[], Worker] | None) -> None:
    """Write SHAPE-TYPE with random weights; llama.cpp quantises what is not F16."""
    shape, _, kind = name.rpartition("-")
    if shape not in SHAPES:
        raise BenchError(f"unknown model {name!r}; shapes: {', '.join(SHAPES)}")
    source = CACHE / f"{shape}-f16.gguf"
    if kind == "f16":
        write(out, shape)
        return
    if peer is None:
        raise BenchError(f"{name} is quantised with llama.cpp, which is not installed")
    model_path(source.stem, peer=peer)
    with peer() as worker:
        worker.ask({"do": "quantize", "source": str(source), "target": str(out), "type": kind.upper()})
