"""Qwen3-Reranker: a language model of whose output matrix only the rows of yes and no are used.

llama.cpp scores with a head of these two rows and a template named "rerank"; files of ours hold both.
Source: llama.cpp, conversion/qwen.py, for names and labels.
"""

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path

import gguf

from engine.conversion import rows_of
from engine.convert_causal import CausalConversion
from engine.convert_families import Qwen3
from engine.convert_tokens import section
from engine.errors import ConversionError
from engine.rerank_judge import AFTER, BEFORE, TASK
from engine.safetensors_folder import StoredTensor, read_json

ANSWERS = ("yes", "no")
_MARKS = ("qwen3-reranker", "qwen3_reranker")
# What llama.cpp fills in; else as the judge asks.
_TEMPLATE = f"{BEFORE}<Instruct>: {TASK}\n<Query>: {{query}}\n<Document>: {{document}}{AFTER}"


@dataclass(frozen=True, slots=True)
class Qwen3Reranker(Qwen3):
    """Qwen3-Reranker; `answers` are the ids of yes and no."""

    answers: tuple[int, ...] = ()
    has_matrix: bool = False
    """Whether the folder has an output matrix beside that of the tokens."""

    def tensors(self, stored: StoredTensor) -> Iterable[tuple[str, StoredTensor]]:
        if stored.name == ("lm_head.weight" if self.has_matrix else "model.embed_tokens.weight"):
            for token_id in self.answers:
                yield "cls.output.weight", rows_of(stored, token_id, 1)
        yield from super(Qwen3Reranker, self).tensors(stored)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        head = {"cls.output.weight": (len(self.answers), self.n_embd)}
        return super(Qwen3Reranker, self).shapes() | head

    def write_hparams(self, writer: gguf.GGUFWriter, folder: Path) -> None:
        super(Qwen3Reranker, self).write_hparams(writer, folder)
        writer.add_pooling_type(gguf.PoolingType.RANK)
        writer.add_classifier_output_labels(ANSWERS)
        writer.add_array("tokenizer.chat_templates", ["rerank"])
        writer.add_string("tokenizer.chat_template.rerank", _TEMPLATE)


def is_reranker(folder: Path) -> bool:
    """Say whether a folder calls itself so: nothing else in it tells."""
    readme = folder / "README.md"
    text = readme.read_text("utf-8", "replace")[:65536] if readme.exists() else ""
    return any(mark in folder.resolve().name.lower() or f"# {mark}" in text.lower() for mark in _MARKS)


def as_reranker(conversion: CausalConversion, folder: Path) -> Qwen3Reranker:
    """Make a conversion of Qwen 3 one of its reranker. Raises: ConversionError."""
    vocab = section(section(read_json(folder / "tokenizer.json"), "model"), "vocab")
    for word in ANSWERS:
        if type(vocab.get(word)) is not int:
            raise ConversionError(
                f"the vocabulary of {folder} has no token {word!r}, with which it would judge"
            )
    names = [field.name for field in fields(CausalConversion)]
    values = {name: getattr(conversion, name) for name in names}
    ids = tuple(vocab[word] for word in ANSWERS)
    # The rest of the output matrix is never asked.
    made = Qwen3Reranker(**values, answers=ids, has_matrix=not conversion.tied)
    return replace(made, tied=True)
