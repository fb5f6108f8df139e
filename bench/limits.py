"""What the machine can do at most, and which share of it a figure is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import gguf

from bench.turns import Row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from bench.cases import Case

UNITS = {"int8": "Gop/s", "bf16": "Gop/s", "fp32": "Gop/s", "read": "GB/s"}


@dataclass(frozen=True, slots=True)
class Limits:
    """Operations a second by kind of number, and bytes of memory a second ("read")."""

    peaks: Mapping[str, float]

    def rows(self) -> Iterator[Row]:
        """Yield the rows of the peaks themselves."""
        for name, unit in UNITS.items():
            yield Row(f"limit/{name}", self.peaks[name] / 1e9, None, None, unit, None)

    def share(self, case: Case, model: Path, value: float) -> float | None:
        """Return the share of int8 products (reading) or of memory reads (writing) that is used."""
        work = case.work
        if work["do"] in {"prefill", "embed"}:
            return value * _operations_per_token(model, int(str(work["n_tokens"]))) / self.peaks["int8"]
        if work["do"] == "decode":
            steps = value / int(str(work["n_sequences"]))
            return steps * _weight_bytes(model) / self.peaks["read"]
        return None


def _operations_per_token(model: Path, n_tokens: int) -> float:
    """Count products and sums of one token of `n_tokens`: the layers' matrices and attention."""
    reader = gguf.GGUFReader(model)
    matrices = sum(
        int(t.n_elements) for t in reader.tensors if t.name.startswith("blk.") and len(t.shape) == 2
    )
    architecture = str(_value(reader, "general.architecture"))
    width, layers, heads = (
        int(_value(reader, f"{architecture}.{key}"))
        for key in ("embedding_length", "block_count", "attention.head_count")
    )
    key_field = reader.fields.get(f"{architecture}.attention.key_length")
    head_dim = int(key_field.contents()) if key_field else width // heads
    keys = n_tokens if architecture == "bert" else (n_tokens + 1) / 2
    return 2 * matrices + 4 * layers * heads * head_dim * keys


def _weight_bytes(model: Path) -> int:
    """Count the bytes of weights that one step of decoding reads."""
    tensors = gguf.GGUFReader(model).tensors
    tied = not any(t.name == "output.weight" for t in tensors)
    return sum(int(t.n_bytes) for t in tensors if tied or t.name != "token_embd.weight")


def _value(reader: gguf.GGUFReader, key: str) -> str | int:
    return reader.fields[key].contents()  # type: ignore[no-any-return]  # gguf's own types are loose
