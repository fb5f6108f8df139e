"""Read the tokenizer's keys from GGUF metadata, checked: the file is not trusted."""

import enum
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from engine.errors import UnsupportedModel

_log = logging.getLogger(__name__)

MAX_TOKENS = 4_000_000
STRIPS_LEFT_KEY = "quarry.tokenizer.strips_left"
STRIPS_RIGHT_KEY = "quarry.tokenizer.strips_right"
SPACE = "\u2581"
"""How SentencePiece vocabularies write a space."""

# Tokens that end a generation, known by their text because many files name only one of them by key.
_END_TEXTS = frozenset(
    {
        *("<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>"),
        *("<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]"),
        *("<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "[e~["),
        *("<\uff5cend\u2581of\u2581sentence\uff5c>", "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<|fim_repo|>"),
        *("<|repo_name|>", "<fim-repo>", "<reponame>", "<|file_sep|>"),
    }
)
_END_KEYS = ("eos", "eot", "eom", "fim_pad", "fim_rep", "fim_sep")
_END_OF_SENTENCE = "</s>"
# ChatGLM ends its turn by beginning that of another; older files do not name these.
_GLM_MARK, _GLM_ENDS = "[gMASK]", ("<|user|>", "<|observation|>")
# Tokens between which code is filled in: some files call them normal, and a text holds them by chance.
_FILL_TEXTS = frozenset(
    {
        *(f"<{name}>" for name in ("PRE", "SUF", "MID")),
        *(f"\u2581<{name}>" for name in ("PRE", "SUF", "MID")),
        *(f"<|fim_{name}|>" for name in ("prefix", "suffix", "middle")),
        *(f"<fim{dash}{name}>" for dash in "-_" for name in ("prefix", "suffix", "middle")),
        *(f"<|code_{name}|>" for name in ("prefix", "suffix", "middle")),
        *(f"<\uff5cfim\u2581{name}\uff5c>" for name in ("begin", "hole", "end")),
    }
)

T = TypeVar("T", int, float, str)


class Metadata(Protocol):
    """Keys and values of a GGUF file; `engine._native.GgufFile` and any dict are one."""

    def get(self, key: str, /) -> object:
        """Return the value of `key`; KeyError or None where it is absent."""


class TokenType(enum.IntEnum):
    """What a token is for, as `tokenizer.ggml.token_type` numbers it."""

    UNDEFINED = 0
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A checked vocabulary: `tokens[id]` is text as the file writes it, `types[id]` its use."""

    kind: str
    pre: str
    tokens: tuple[str, ...]
    types: tuple[TokenType, ...]
    scores: tuple[float, ...]
    """As long as `tokens`, or empty where the file has none."""
    merges: tuple[tuple[str, str], ...]
    charsmap: bytes
    """How Unigram normalises text, b"" where the file has no such table."""
    end_ids: frozenset[int]


def read_vocabulary(file: Metadata) -> Vocabulary:
    """Read and check tokens, types, scores and merges.

    Raises: UnsupportedModel naming key, value and limit.
    """
    kind = read_str(file, "tokenizer.ggml.model")
    if kind is None:
        raise UnsupportedModel("tokenizer.ggml.model is missing: the file has no tokenizer")
    tokens = _read_tokens(file)
    types = _read_types(file, len(tokens))
    scores = read_list(file, "tokenizer.ggml.scores", float, len(tokens))
    for i, score in enumerate(scores):
        if not math.isfinite(score):
            raise UnsupportedModel(f"tokenizer.ggml.scores[{i}] is {score}, not a finite number")
    merges = _read_merges(file)
    named = {read_token_id(file, f"tokenizer.ggml.{key}_token_id", len(tokens)) for key in _END_KEYS}
    ends_by_key = {token_id for token_id in named if token_id is not None}
    # Qwen has "</s>" as an ordinary piece of HTML: what merges make is text, and ends nothing.
    merged = {a + b for a, b in merges if a + b in _END_TEXTS}

    def ends(i: int, text: str) -> bool:
        if text == _END_OF_SENTENCE and types[i] is not TokenType.CONTROL:
            # So has Gemma, as a token of its own beside the end that its files name.
            return i in ends_by_key or not (text in merged or ends_by_key)
        return text in _END_TEXTS and not (text in merged and types[i] is TokenType.NORMAL)

    end_ids = {i for i, text in enumerate(tokens) if ends(i, text)}
    for i, text in enumerate(tokens):
        # Some files call these normal or user-defined; text from a user must never become one.
        if i in end_ids or text in _FILL_TEXTS:
            types[i] = TokenType.CONTROL
    end_ids |= ends_by_key
    if _GLM_MARK in tokens:
        end_ids |= {i for i, text in enumerate(tokens) if text in _GLM_ENDS}
    pre = read_str(file, "tokenizer.ggml.pre")
    if kind == "gpt2" and not pre:
        _log.warning(
            "tokenizer.ggml.pre is missing: texts are cut in the oldest way, which may not be this model's; "
            "a newer conversion of it names its own"
        )
    return Vocabulary(
        kind=kind,
        pre=pre or "default",
        tokens=tuple(tokens),
        types=tuple(types),
        scores=tuple(scores),
        merges=merges,
        charsmap=_read_charsmap(file),
        end_ids=frozenset(end_ids),
    )


def read_value(file: Metadata, key: str) -> object:
    """Return the value of `key`, or None where it is absent."""
    try:
        return file.get(key)
    except KeyError:
        return None


def read_str(file: Metadata, key: str) -> str | None:
    """Return a text key, or None where it is absent. Raises: UnsupportedModel for another type."""
    value = read_value(file, key)
    if value is None or isinstance(value, str):
        return value
    raise UnsupportedModel(f"{key} is of type {type(value).__name__}; text is expected")


def read_bool(file: Metadata, key: str, default: bool) -> bool:
    """Return a yes/no key, or `default` where it is absent. Raises: UnsupportedModel for another type."""
    value = read_value(file, key)
    if value is None:
        return default
    if isinstance(value, bool):
        return value
    raise UnsupportedModel(f"{key} is of type {type(value).__name__}; a bool is expected")


def read_token_id(file: Metadata, key: str, n_tokens: int) -> int | None:
    """Return a token id, or None where it is absent or outside the vocabulary (real files have such)."""
    value = read_value(file, key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise UnsupportedModel(f"{key} is of type {type(value).__name__}; a token id is expected")
    return value if 0 <= value < n_tokens else None


def _read_tokens(file: Metadata) -> list[str]:
    tokens = read_list(file, "tokenizer.ggml.tokens", str, None)
    if not tokens:
        raise UnsupportedModel("tokenizer.ggml.tokens is missing or empty: the file has no vocabulary")
    if len(tokens) > MAX_TOKENS:
        raise UnsupportedModel(
            f"tokenizer.ggml.tokens has {len(tokens)} entries; at most {MAX_TOKENS} are read"
        )
    seen: dict[str, int] = {}
    tokens = [text or f"[EMPTY_{i}]" for i, text in enumerate(tokens)]
    for i, text in enumerate(tokens):
        first = seen.setdefault(text, i)
        if first != i:
            raise UnsupportedModel(f"tokenizer.ggml.tokens holds {text[:40]!r} twice, at {first} and {i}")
    return tokens


def _read_types(file: Metadata, n_tokens: int) -> list[TokenType]:
    numbers = read_list(file, "tokenizer.ggml.token_type", int, n_tokens)
    if not numbers:
        return [TokenType.NORMAL] * n_tokens
    known = {int(t): t for t in TokenType}
    return [known.get(number, TokenType.UNDEFINED) for number in numbers]


def _read_merges(file: Metadata) -> tuple[tuple[str, str], ...]:
    merges = []
    for i, line in enumerate(read_list(file, "tokenizer.ggml.merges", str, None)):
        # The left part is never empty, and may itself begin with a space.
        cut = line.find(" ", 1)
        if cut < 0 or cut + 1 == len(line):
            raise UnsupportedModel(f"tokenizer.ggml.merges[{i}] is {line[:40]!r}; two parts are expected")
        merges.append((line[:cut], line[cut + 1 :]))
    return tuple(merges)


def _read_charsmap(file: Metadata) -> bytes:
    numbers = read_list(file, "tokenizer.ggml.precompiled_charsmap", int, None)
    if numbers and not (min(numbers) >= -128 and max(numbers) <= 255):
        raise UnsupportedModel("tokenizer.ggml.precompiled_charsmap holds numbers that are no bytes")
    return bytes(number & 0xFF for number in numbers)


def read_list(file: Metadata, key: str, item: type[T], length: int | None) -> list[T]:
    """Return a list key, [] where absent, cut to `length` entries; fewer are an error.

    Raises: UnsupportedModel.
    """
    value = read_value(file, key)
    if value is None:
        return []
    if isinstance(value, str | bytes) or not isinstance(value, Sequence):
        raise UnsupportedModel(f"{key} is of type {type(value).__name__}; a list is expected")
    if length is not None and len(value) < length:
        raise UnsupportedModel(f"{key} has {len(value)} entries; the vocabulary has {length} tokens")
    allowed = (int, float) if item is float else (item,)
    result: list[T] = []
    for i, entry in enumerate(value if length is None else value[:length]):
        if isinstance(entry, bool) or not isinstance(entry, allowed):
            kind = type(entry).__name__
            raise UnsupportedModel(f"{key}[{i}] is of type {kind}; {item.__name__} is expected")
        result.append(item(entry))
    return result
