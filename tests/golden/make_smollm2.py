"""Write smollm2.npz: llama.cpp's next-token distributions of SmolLM2-135M-Instruct Q4_1 on 50 prompts.

Usage, from the repository root, in the peers' environment (requirements/peers.txt):
    .venv-peers/bin/python -m tests.golden.make_smollm2 SmolLM2-135M-Instruct.Q4_1.gguf
and then make_smollm2_f32.py, which adds the second of two references, both by llama.cpp from the same file:

- `default`: as llama-cpp-python runs it. Its kernels round the activations to 8 bits before each matrix
  product, and the rounding differs with flash attention, batch size and cache type. That alone moves the
  distributions: what it amounts to is measured here, stored (`own_kl`, `own_agreement`) and printed.
- `f32`: with its BLAS backend, which expands the weights and multiplies in F32: nothing is rounded.
"""

from __future__ import annotations

import sys
from dataclasses import fields
from pathlib import Path

import numpy as np

from bench import llama
from tests.golden.distributions import CutDistributions, cut, full_divergence, log_softmax
from tests.golden.smollm2_prompts import PROMPTS

OUT = Path(__file__).with_name("smollm2.npz")
TOP_K = 48
"""Tokens kept of each distribution, and tokens drawn from its tail."""
POSITIONS_PER_PROMPT = 56
N_THREADS = 1
"""llama.cpp's numbers do not depend on it; one thread waits for no other on a busy machine."""


def variants(path: Path) -> dict[str, llama.Llama]:
    """Open llama.cpp in the settings that are compared; `default` is the reference."""
    n = N_THREADS
    return {
        "default": llama.Llama(path, llama.Settings(n_threads=n)),
        "no flash attention": llama.Llama(path, llama.Settings(n_threads=n, flash_attention=False)),
        "micro-batches of 32": llama.Llama(path, llama.Settings(n_threads=n, n_ubatch=32)),
    }


def choose_positions(n_tokens: int) -> list[int]:
    """Spread positions evenly over a prompt, the last one included."""
    spread = np.linspace(0, n_tokens - 1, min(n_tokens, POSITIONS_PER_PROMPT))
    return [int(i) for i in spread.round()]


def report(rows: dict[str, list[np.ndarray]], tops: list[np.ndarray]) -> None:
    print(f"{sum(len(r) for r in rows['no flash attention'])} positions of {len(PROMPTS)} prompts")
    print("KL(default || other), nats, and agreement on the most likely token:")
    for name, values in rows.items():
        kl = np.concatenate(values)
        agreement = np.concatenate([t[name] for t in tops])
        print(f"  {name:20} mean {kl.mean():.2e}  median {np.median(kl):.2e}  top-1 {agreement.mean():.2%}")


def main(path: Path) -> None:
    llama.start()
    if llama.has_blas():
        sys.exit("this build has a BLAS backend, which would compute the default setting: use one without")
    models = variants(path)
    write(models)
    for model in models.values():
        model.close()


def columns_of(kept: CutDistributions, reference: str) -> dict[str, np.ndarray]:
    """Name the arrays of a reference as the file does."""
    return {f"{reference}_{field.name}": getattr(kept, field.name) for field in fields(CutDistributions)}


def write(models: dict[str, llama.Llama]) -> None:
    others = [name for name in models if name != "default"]
    full: dict[str, list[np.ndarray]] = {name: [] for name in others}
    tops: list[dict[str, np.ndarray]] = []
    stored: dict[str, list[np.ndarray]] = {"ids": [], "positions": []}
    for number, prompt in enumerate(PROMPTS):
        ids = models["default"].tokenize(prompt, add_special=True, parse_special=True)
        positions = choose_positions(len(ids))
        print(f"prompt {number}: {len(ids)} tokens", flush=True)
        found = {name: log_softmax(model.logits(ids, positions)) for name, model in models.items()}
        stored["ids"].append(np.array(ids, np.uint16))
        stored["positions"].append(np.array(positions, np.uint16))
        for name, column in columns_of(cut(found["default"], TOP_K, seed=number), "default").items():
            stored.setdefault(name, []).append(column)
        best = found["default"].argmax(axis=1)
        tops.append({name: found[name].argmax(axis=1) == best for name in others})
        for name in others:
            full[name].append(full_divergence(found["default"], found[name]))
    report(full, tops)
    np.savez_compressed(
        OUT,
        n_tokens=np.array([len(ids) for ids in stored["ids"]]),
        n_positions=np.array([len(p) for p in stored["positions"]]),
        own_kl=np.array([np.concatenate(full[name]).mean() for name in others]),
        own_agreement=np.array([np.concatenate([t[name] for t in tops]).mean() for name in others]),
        **{name: np.concatenate(values) for name, values in stored.items()},
    )
    print(f"{OUT.name}: {OUT.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
