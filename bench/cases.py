"""What is measured: one Case a row of the table, with what each side is asked to do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

Request = Mapping[str, object]

STARTER_CHAT, STARTER_EMBEDDING = "smollm2-q4_1", "minilm-f16"

FLASH = {"flash attention": {"flash_attention": True}, "no flash attention": {"flash_attention": False}}
FLASH_AND_REPACK = {
    f"{flash}{', no repack' if not repack else ''}": {**setting, "repack": repack}
    for flash, setting in FLASH.items()
    for repack in (True, False)
}
CALLS = {
    f"{flash}, {n} a call": {**setting, "per_call": n} for flash, setting in FLASH.items() for n in (1, 8)
}
ONNX = {
    f"onnxruntime {kind}, {n} a call": {"engine": f"onnxruntime {kind}", "per_call": n}
    for kind in ("fp32", "int8")
    for n in (8, 64)
}
"""onnxruntime on a graph of its fused operators; "int8" is its dynamic quantisation."""
ONNX_COSINES = {
    "onnxruntime int8": {"engine": "onnxruntime int8"},
    "onnxruntime int8 per channel": {"engine": "onnxruntime int8", "per_channel": True},
}

TOGETHER = {
    f"{flash}, {'together' if together else 'one after the other'}": {**setting, "together": together}
    for flash, setting in FLASH.items()
    for together in (True, False)
}
"""How several chats are run: every prompt and then all answers in one batch, or one chat after the other."""

REPACKED = frozenset({"Q4_0", "Q8_0", "Q4_K_M", "Q4_K_S", "Q5_K_M", "Q6_K"})
"""Types whose weights llama.cpp can lay out anew while loading."""

DECODER_SHAPES: dict[str, tuple[str, ...]] = {
    "qwen2-1.5b": ("Q8_0", "Q4_0", "Q4_K_M", "Q5_K_M"),
    "llama-1b": ("F16", "Q8_0", "Q4_0", "Q4_1"),
}
ENCODER_SHAPES: dict[str, tuple[str, ...]] = {"bge-small": ("F16", "Q8_0"), "bge-base": ("F16", "Q8_0")}


@dataclass(frozen=True, slots=True)
class Case:
    """A row: the same work for both sides, and the settings that the peer may choose from."""

    name: str
    unit: str
    model: str
    """A starter model, or SHAPE-TYPE."""
    work: Request
    settings: Mapping[str, Mapping[str, object]]
    """The peer's settings by name; the best one is the peer."""
    better: Literal["higher", "lower"] = "higher"
    fresh: bool = False
    """Needs worker processes of its own."""


def starter_cases() -> Iterator[Case]:
    """Yield the rows on the two starter models."""
    yield _prefill(STARTER_CHAT, 512, FLASH)
    yield _decode(STARTER_CHAT, "64", 1, FLASH)
    yield _embed(STARTER_EMBEDDING, 256)
    yield Case(
        f"lookup/{STARTER_CHAT}", "tokens/s", STARTER_CHAT, {"do": "lookup", "n_tokens": 200}, {"default": {}}
    )
    yield _chats(STARTER_CHAT)


def shape_cases() -> Iterator[Case]:
    """Yield the rows on random weights in the shapes of larger models."""
    for shape, types in ENCODER_SHAPES.items():
        for kind in types:
            for n in (32, 128, 256):
                yield _embed(f"{shape}-{kind.lower()}", n, {**CALLS, **ONNX})
            work = {"do": "cosines", "n_tokens": 128, "n_passages": 8}
            yield Case(
                f"cosine/{shape}-{kind.lower()}", "least", f"{shape}-{kind.lower()}", work, ONNX_COSINES
            )
    for shape, types in DECODER_SHAPES.items():
        for kind in types:
            model = f"{shape}-{kind.lower()}"
            settings = FLASH_AND_REPACK if kind in REPACKED else FLASH
            for n in (512, 4096):
                yield _prefill(model, n, settings)
            yield _decode(model, "1", 1, settings)
            yield _decode(model, "8", 8, settings)
            if kind == "Q4_K_M":
                yield _chats(model)
                yield _chats(model, n=2)
            yield Case(f"load/{model}", "s", model, {"do": "load"}, {"default": {}}, better="lower")
            memory = {"do": "memory", "n_tokens": 512}
            yield Case(f"memory/{model}", "bytes", model, memory, {"default": {}}, "lower", fresh=True)


def _chats(model: str, *, n: int = 8) -> Case:
    work = {"do": "chats", "n_chats": n, "n_prompt": 2000, "n_tokens": 64}
    return Case(f"chats{n}/{model}", "s", model, work, TOGETHER, better="lower")


def _prefill(model: str, n: int, settings: Mapping[str, Mapping[str, object]]) -> Case:
    return Case(f"prefill/{model}/{n}", "tokens/s", model, {"do": "prefill", "n_tokens": n}, settings)


def _decode(model: str, label: str, n: int, settings: Mapping[str, Mapping[str, object]]) -> Case:
    work = {"do": "decode", "n_sequences": n, "n_context": 32, "n_tokens": 64}
    return Case(f"decode/{model}/{label}", "tokens/s", model, work, settings)


def _embed(model: str, n: int, settings: Mapping[str, Mapping[str, object]] = CALLS) -> Case:
    work = {"do": "embed", "n_tokens": n, "n_passages": 64}
    return Case(f"embed/{model}/{n}", "tokens/s", model, work, settings)
