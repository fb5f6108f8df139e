"""Tokens of a Hugging Face folder as they are collected for a GGUF file."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf

from engine.errors import ConversionError
from engine.safetensors_folder import read_json
from engine.vocabulary import SPACE, TokenType

_ADDED_SCORE = -1000.0


@dataclass(slots=True)
class Vocab:
    """Tokens by id as they are collected; ids without a token are padded as unused."""

    tokens: dict[int, str] = field(default_factory=dict)
    types: dict[int, TokenType] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    def put(self, token_id: Any, text: Any, kind: TokenType, score: float = 0.0) -> None:
        """Add a token, in the place of one of its id. Raises: ConversionError."""
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not isinstance(text, str):
            raise ConversionError(
                f"the vocabulary maps {text!r:.60} to {token_id!r:.60}; text to id is expected"
            )
        self.tokens[token_id], self.types[token_id], self.scores[token_id] = text, kind, score

    def write(self, writer: gguf.GGUFWriter, n_vocab: int, *, scored: bool) -> None:
        """Write `n_vocab` tokens with their types. Raises: ConversionError for an id outside."""
        outside = [i for i in self.tokens if not 0 <= i < n_vocab]
        if outside:
            raise ConversionError(f"token id {outside[0]} is outside the vocab_size {n_vocab} of config.json")
        ids = range(n_vocab)
        writer.add_token_list([self.tokens.get(i, f"[PAD{i}]") for i in ids])
        if scored:
            writer.add_token_scores([self.scores.get(i, -10000.0) for i in ids])
        writer.add_token_types([int(self.types.get(i, TokenType.UNUSED)) for i in ids])


def put_added(vocab: Vocab, added: Sequence[Mapping[str, Any]]) -> None:
    """Add what stands beside a vocabulary: control tokens, and text that is never cut."""
    for entry in added:
        text = entry.get("content")
        special = entry.get("special") is True or _looks_special(str(text))
        kind = TokenType.CONTROL if special else TokenType.USER_DEFINED
        if kind is TokenType.USER_DEFINED and isinstance(text, str):
            text = text.replace(SPACE, " ")
        vocab.put(entry.get("id"), text, kind, _ADDED_SCORE)


def _looks_special(text: str) -> bool:
    """Say whether a token is a control token although its file does not say so, as llama.cpp does."""
    if text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]"):
        return True
    ends = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    return any(text.startswith(start) and text.endswith(end) for start, end in ends)


def added_tokens(tokenizer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """List the added tokens of a tokenizer.json."""
    added = tokenizer.get("added_tokens")
    return [entry for entry in added if isinstance(entry, Mapping)] if isinstance(added, list) else []


def added_in_config(folder: Path) -> list[Mapping[str, Any]]:
    """List the added tokens of tokenizer_config.json."""
    path = folder / "tokenizer_config.json"
    decoder = section(read_json(path) if path.exists() else {}, "added_tokens_decoder")
    return [
        {**entry, "id": int(token_id)}
        for token_id, entry in decoder.items()
        if isinstance(entry, Mapping) and token_id.isdecimal()
    ]


def section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object under a key, {} where there is none."""
    section = values.get(key)
    return section if isinstance(section, Mapping) else {}


def steps(step: object) -> Iterator[Mapping[str, Any]]:
    """Walk a normalizer or pre-tokenizer and what it is made of."""
    if isinstance(step, Mapping):
        yield step
        for key in ("normalizers", "pretokenizers"):
            for inner in step.get(key) or ():
                yield from steps(inner)


def is_byte(text: str) -> bool:
    """Say whether a token stands for a byte, as SentencePiece writes it."""
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")
