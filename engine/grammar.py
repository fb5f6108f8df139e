"""Hold an answer to a form: JSON of a schema, or a regular expression.

llguidance follows what was written and tells which tokens may come next; the sampler draws only from these.
"""

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import llguidance
import numpy as np
from numpy.typing import NDArray

from engine.errors import GrammarError
from engine.tokenizer import Tokenizer

Mask = NDArray[np.uint32]

_LONGEST_SOURCE = 1 << 18
# One way to write each value: small models otherwise write blanks for ever.
_JSON_OPTIONS: Any = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}


@dataclass(frozen=True, slots=True)
class Grammar:
    """A checked form, as llguidance writes it; any model can follow it.

    schema: the form as a JSON schema, for models that run elsewhere; any text for a regular expression.
    """

    source: str
    schema: str = '{"type": "string"}'


def json_schema_grammar(schema: Mapping[str, Any]) -> Grammar:
    """Accept the JSON texts that `schema` describes. Raises: GrammarError naming what is wrong in it."""
    text = json.dumps(schema)
    _check_length(text)
    try:
        source = llguidance.LLMatcher.grammar_from_json_schema(text, defaults=_JSON_OPTIONS)
        return replace(_checked(source), schema=text)
    except ValueError as error:
        raise GrammarError(f"the schema cannot be followed: {error}") from error


def json_object_grammar() -> Grammar:
    """Accept any JSON object."""
    return json_schema_grammar({"type": "object"})


def regex_grammar(pattern: str) -> Grammar:
    """Accept what the whole of `pattern` matches. Raises: GrammarError."""
    _check_length(pattern)
    return _checked(llguidance.LLMatcher.grammar_from_regex(pattern))


def _check_length(text: str) -> None:
    if len(text) > _LONGEST_SOURCE:
        raise GrammarError(f"the schema has {len(text)} characters; at most {_LONGEST_SOURCE} are read")


def _checked(source: str) -> Grammar:
    is_error, messages = llguidance.LLMatcher.validate_grammar_with_warnings(source)
    if is_error:
        raise GrammarError(f"the schema cannot be followed: {' '.join(messages[0].split())[:300]}")
    return Grammar(source)


class Matcher:
    """A grammar on its way through one answer. One thread at a time."""

    def __init__(self, matcher: llguidance.LLMatcher, *, n_words: int) -> None:
        """Begin an answer; masks have `n_words` words of 32 tokens. Use `Vocabulary.matcher`."""
        self._matcher = matcher
        self._n_words = n_words

    def mask(self) -> Mask:
        """Return the tokens that may come next, a bit for each, [n_words]. Raises: GrammarError."""
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint32)
        self._check()
        mask = np.zeros(self._n_words, np.uint32)
        n_words = min(len(bits), self._n_words)
        mask[:n_words] = bits[:n_words]
        return mask

    def accept(self, token_id: int) -> bool:
        """Take the token that was drawn; return whether the answer is complete. Raises: GrammarError."""
        self._matcher.consume_token(token_id)
        self._check()
        return self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise GrammarError(f"the schema cannot be followed: {self._matcher.get_error()[:300]}")


class GrammarVocabulary:
    """A tokenizer as llguidance wants it, built when first needed. Thread-safe."""

    def __init__(self, tokenizer: Tokenizer, *, vocab_size: int) -> None:
        """Note the tokenizer; `vocab_size` is the model's, which may be more."""
        self._tokenizer = tokenizer
        self._n_words = (vocab_size + 31) // 32
        self._lock = threading.Lock()
        self._built: llguidance.LLTokenizer | None = None

    def matcher(self, grammar: Grammar) -> Matcher:
        """Begin an answer that follows `grammar`. Raises: GrammarError."""
        with self._lock:
            if self._built is None:
                self._built = _build(self._tokenizer)
        matcher = llguidance.LLMatcher(self._built, grammar.source, log_level=0)
        if matcher.is_error():
            raise GrammarError(f"the schema cannot be followed: {matcher.get_error()[:300]}")
        return Matcher(matcher, n_words=self._n_words)


class _Tokens:
    """What llguidance reads of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        ids = range(tokenizer.vocab_size)
        self.eos_token_id = min(tokenizer.eos_ids)
        self.bos_token_id = tokenizer.bos_id
        self.tokens = [tokenizer.token_bytes(i) for i in ids]
        self.special_token_ids = [i for i in ids if tokenizer.is_hidden(i)]
        self._tokenizer = tokenizer

    def __call__(self, text: str | bytes) -> list[int]:
        plain = text.decode("utf-8", "replace") if isinstance(text, bytes) else text
        return self._tokenizer.encode(plain, add_special=False)


def _build(tokenizer: Tokenizer) -> llguidance.LLTokenizer:
    if not tokenizer.eos_ids:
        raise GrammarError("the model names no end of text, so no answer of it can be held to a schema")
    wrapped = llguidance.TokenizerWrapper(_Tokens(tokenizer))
    return llguidance.LLTokenizer(wrapped, eos_token=sorted(tokenizer.eos_ids))
