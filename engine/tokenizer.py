"""Text to token ids and back, by the vocabulary in a GGUF file.

Special tokens are cut out of the text here, and the model below never holds control tokens: text can become
one only when the caller asks for it with `parse_special`.
"""

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.errors import UnsupportedModel
from engine.special_tokens import SpecialTokens
from engine.tokenizer_models import NEVER, BuiltModel, build_model, byte_alphabet
from engine.vocabulary import (
    SPACE,
    STRIPS_LEFT_KEY,
    STRIPS_RIGHT_KEY,
    Metadata,
    TokenType,
    Vocabulary,
    read_bool,
    read_list,
    read_str,
    read_token_id,
    read_value,
    read_vocabulary,
)
from engine.word_counts import WordCounts

# What older files leave out; llama.cpp's constants for the same kinds.
_DEFAULT_BOS = {"llama": 1, "bert": 101}
_DEFAULT_EOS = {"llama": 2, "t5": 1}
_DEFAULT_SEP = {"bert": 102}
_END_OF_TEXT = "<|endoftext|>"
_HIDDEN = (TokenType.CONTROL, TokenType.UNKNOWN)


@dataclass(frozen=True, slots=True)
class SpecialIds:
    """The ids put around a text, None where nothing is put there, and the names of the ends of text."""

    bos: int | None
    eos: int | None
    prefix: int | None
    suffix: int | None
    separators: tuple[int, ...] = ()
    """What stands between the two texts of a pair."""


@dataclass(frozen=True, slots=True)
class Strips:
    """Special tokens that swallow the blanks before or after them."""

    left: frozenset[int] = frozenset()
    right: frozenset[int] = frozenset()


class Tokenizer:
    """A vocabulary with its rules. Immutable and thread-safe."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        built: BuiltModel,
        special: SpecialIds,
        strips: Strips,
    ) -> None:
        """Join a checked vocabulary and the model that merges its pieces; see `load_tokenizer`."""
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id = special.bos
        self.eos_id = special.eos
        self.eos_ids = vocabulary.end_ids | ({special.eos} if special.eos is not None else set())
        self.add_space_prefix = built.add_space_prefix
        self._vocabulary = vocabulary
        self._model = built.model
        self._words = WordCounts(built.model) if vocabulary.kind == "bert" else None
        self._strips = strips
        self._prefix = special.prefix
        self._suffix = special.suffix
        self._separators = special.separators
        self._is_byte_level = built.is_byte_level
        self._letters = byte_alphabet()
        # Where nothing is put before a text, pieces of spaces are as in it: Gemma's runs of them.
        self._spaced = not (built.add_space_prefix or built.is_byte_level)
        self._user_tokens = SpecialTokens(self._special_texts(TokenType.USER_DEFINED))
        self._all_tokens = SpecialTokens(self._special_texts(TokenType.USER_DEFINED, *_HIDDEN))

    def encode(self, text: str, *, add_special: bool = True, parse_special: bool = False) -> list[int]:
        """Cut `text` into token ids.

        `add_special` puts the tokens around it that the file asks for; `parse_special` recognises control
        tokens in the text (for rendered chat templates, never for text of a user). A BOS token that the text
        already begins with is not put there twice.
        """
        ids = self._encode_body(text, parse_special)
        if not add_special:
            return ids
        if self._prefix is not None and not (parse_special and ids[:1] == [self._prefix]):
            ids.insert(0, self._prefix)
        if self._suffix is not None:
            ids.append(self._suffix)
        return ids

    def join_pair(self, first: Sequence[int], second: Sequence[int]) -> tuple[list[int], int]:
        """Put the special tokens of a pair around two texts; return the ids and where the second begins."""
        ids = [] if self._prefix is None else [self._prefix]
        ids += [*first, *self._separators]
        begins = len(ids)
        ids += second
        if self._suffix is not None:
            ids.append(self._suffix)
        return ids, begins

    def count(self, texts: Sequence[str]) -> list[int]:
        """Count the tokens of each text, those around it left out: `encode` of many at once."""
        if self._words is not None and not self._user_tokens:
            return self._words.count([_without_surrogates(text) for text in texts])
        plain = {
            i: self._as_first(_without_surrogates(text))
            for i, text in enumerate(texts)
            if text and not self._user_tokens.is_in(text)
        }
        encoded = self._model.encode_batch_fast(list(plain.values()), add_special_tokens=False)
        counts = dict(zip(plain, map(len, encoded), strict=True))
        return [
            counts[i] if i in counts else len(self._encode_body(text, parse_special=False))
            for i, text in enumerate(texts)
        ]

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """Join tokens to text; bytes that are not UTF-8 become U+FFFD. Raises: IndexError."""
        decoder = StreamDecoder(self, skip_special=skip_special)
        return "".join(decoder.push(token_id) for token_id in ids) + decoder.flush()

    def token_bytes(self, id: int) -> bytes:  # noqa: A002 - the name that callers know
        """Return the bytes that a token stands for: byte fallback and byte-level letters undone.

        Raises: IndexError for an id outside the vocabulary.
        """
        if not 0 <= id < self.vocab_size:
            raise IndexError(f"token id {id} is outside the vocabulary of {self.vocab_size}")
        text = self._vocabulary.tokens[id]
        token_type = self._vocabulary.types[id]
        if token_type is TokenType.BYTE and (byte := _fallback_byte(text)) is not None:
            return bytes([byte])
        if token_type is TokenType.USER_DEFINED and self._spaced:
            return text.replace(SPACE, " ").encode("utf-8", "surrogatepass")
        if token_type in _HIDDEN or token_type is TokenType.USER_DEFINED:
            return text.encode("utf-8", "surrogatepass")
        if self._is_byte_level:
            try:
                return bytes(self._letters[letter] for letter in text)
            except KeyError:
                return text.encode("utf-8", "surrogatepass")
        return text.replace(SPACE, " ").encode("utf-8", "surrogatepass")

    def token_text(self, id: int) -> str:  # noqa: A002 - as token_bytes
        """Return a token as the file writes it, e.g. "<|im_end|>". Raises: IndexError."""
        if not 0 <= id < self.vocab_size:
            raise IndexError(f"token id {id} is outside the vocabulary of {self.vocab_size}")
        return self._vocabulary.tokens[id]

    def has_token(self, text: str) -> bool:
        """Say whether a token is written so in the file."""
        return text in self._vocabulary.tokens

    def is_hidden(self, id: int) -> bool:  # noqa: A002 - as token_bytes
        """Say whether a token is left out of text for people: control and unknown tokens."""
        return 0 <= id < self.vocab_size and self._vocabulary.types[id] in _HIDDEN

    def _special_texts(self, *types: TokenType) -> Mapping[str, int]:
        found = {}
        for token_id, text in enumerate(self._vocabulary.tokens):
            kind = self._vocabulary.types[token_id]
            if kind in types:
                is_spaced = self._spaced and kind is TokenType.USER_DEFINED
                found[text.replace(SPACE, " ") if is_spaced else text] = token_id
        return found

    def _encode_body(self, text: str, parse_special: bool) -> list[int]:
        special = self._all_tokens if parse_special else self._user_tokens
        text = _without_surrogates(text)
        ids: list[int] = []
        at = 0
        after_special = True
        for start, end, token_id in special.find(text):
            before = text[at:start]
            if token_id in self._strips.left:
                before = before.rstrip()
            if before:
                ids += self._encode_plain(before, after_special=after_special)
            ids.append(token_id)
            after_special = True
            at = end
            if token_id in self._strips.right:
                at = len(text) - len(text[at:].lstrip())
        return ids + self._encode_plain(text[at:], after_special=after_special)

    def _encode_plain(self, text: str, *, after_special: bool) -> list[int]:
        if not text:
            return []
        if self._vocabulary.kind == "llama":
            text = self._as_first(text) if after_special else text.replace(" ", SPACE)
        if self._vocabulary.kind == "t5":
            text = self._as_first(text)
        return self._model.encode(text, add_special_tokens=False).ids

    def _as_first(self, text: str) -> str:
        """Spell a text that follows no other as its model reads it."""
        if self._vocabulary.kind == "t5":
            return text.replace(NEVER, "\ufffd")
        if self._vocabulary.kind != "llama":
            return text
        return (" " + text if self.add_space_prefix else text).replace(" ", SPACE)


class StreamDecoder:
    """Turns tokens to text one by one, and never shows half a character.

    Bytes wait until their character is whole; those that can never become one show as U+FFFD. The space that
    SentencePiece puts before the first word is dropped, unless the tokens continue a text (`continues`).
    """

    def __init__(self, tokenizer: Tokenizer, *, skip_special: bool = True, continues: bool = False) -> None:
        """Begin a text of `tokenizer`."""
        self._tokenizer = tokenizer
        self._skip_special = skip_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._drop_space = tokenizer.add_space_prefix and not continues

    def push(self, token_id: int) -> str:
        """Add a token; return the text that became whole, often "". Raises: IndexError for an unknown id."""
        data = self._tokenizer.token_bytes(token_id)
        if self._skip_special and self._tokenizer.is_hidden(token_id):
            return ""
        if self._drop_space and data:
            data = data.removeprefix(b" ")
            self._drop_space = False
        return self._utf8.decode(data)

    def flush(self) -> str:
        """End the text; return U+FFFD where bytes of a character are missing."""
        return self._utf8.decode(b"", final=True)


def load_tokenizer(file: Metadata, *, ends_texts: bool = False) -> Tokenizer:
    """Build the tokenizer that a GGUF file describes.

    `ends_texts` puts an end token after texts where the file does not say: the vectors of decoders are read
    off it.

    Raises: UnsupportedModel naming the key, its value and what is expected.
    """
    vocabulary = read_vocabulary(file)
    built = build_model(vocabulary, file)
    n_tokens = len(vocabulary.tokens)
    kind = vocabulary.kind
    bos = _special_id(file, ("cls", "bos") if kind == "bert" else ("bos",), n_tokens, _DEFAULT_BOS.get(kind))
    eos = _special_id(file, ("eos",), n_tokens, _DEFAULT_EOS.get(kind))
    sep = _special_id(file, ("seperator", "separator"), n_tokens, _DEFAULT_SEP.get(kind))
    add_bos = read_bool(file, "tokenizer.ggml.add_bos_token", built.add_bos)
    add_eos = read_bool(file, "tokenizer.ggml.add_eos_token", built.add_eos)
    suffix = eos
    if ends_texts and read_value(file, "tokenizer.ggml.add_eos_token") is None:
        add_eos = True
        # Qwen's files name the end of a turn as EOS, but texts end with this.
        suffix = next((i for i, text in enumerate(vocabulary.tokens) if text == _END_OF_TEXT), eos)
    if kind == "bert":
        add_bos = add_eos = True
        suffix = sep
    if kind == "t5" and bos is None:
        add_bos = False
    if add_bos and bos is None:
        raise UnsupportedModel(
            "the tokenizer puts a BOS token first, but tokenizer.ggml.bos_token_id names none"
        )
    if add_eos and suffix is None:
        raise UnsupportedModel(
            "the tokenizer puts an EOS token last, but tokenizer.ggml.eos_token_id names none"
        )
    special = SpecialIds(
        bos,
        eos,
        bos if add_bos else None,
        suffix if add_eos else None,
        _separators(vocabulary, suffix if sep is None else sep),
    )
    return Tokenizer(vocabulary, built, special, _read_strips(file, vocabulary))


def _read_strips(file: Metadata, vocabulary: Vocabulary) -> Strips:
    """Read our own keys, else know the two families whose files leave it out, as llama.cpp does."""
    left = _read_ids(file, STRIPS_LEFT_KEY, len(vocabulary.tokens))
    right = _read_ids(file, STRIPS_RIGHT_KEY, len(vocabulary.tokens))
    if left or right:
        return Strips(left, right)
    if vocabulary.pre.startswith("jina-v2-"):
        return Strips(left=frozenset(i for i, text in enumerate(vocabulary.tokens) if text == "<mask>"))
    name = (read_str(file, "general.name") or "").lower()
    if vocabulary.kind == "llama" and ("phi-3" in name or "phi3" in name):
        kept = ("<unk>", "<s>", "<|endoftext|>")
        controls = (i for i, kind in enumerate(vocabulary.types) if kind is TokenType.CONTROL)
        return Strips(right=frozenset(i for i in controls if vocabulary.tokens[i] not in kept))
    return Strips()


def _read_ids(file: Metadata, key: str, n_tokens: int) -> frozenset[int]:
    return frozenset(i for i in read_list(file, key, int, None) if 0 <= i < n_tokens)


def _separators(vocabulary: Vocabulary, sep: int | None) -> tuple[int, ...]:
    """Return what stands between the texts of a pair; the family of RoBERTa ends one and begins the other."""
    if sep is None:
        return ()
    return (sep, sep) if vocabulary.tokens[sep] == "</s>" else (sep,)


def _special_id(file: Metadata, names: Iterable[str], n_tokens: int, default: int | None) -> int | None:
    for name in names:
        token_id = read_token_id(file, f"tokenizer.ggml.{name}_token_id", n_tokens)
        if token_id is not None:
            return token_id
    return default if default is not None and default < n_tokens else None


def _fallback_byte(text: str) -> int | None:
    match = re.fullmatch(r"<0x([0-9A-Fa-f]{2})>", text)
    return int(match.group(1), 16) if match else None


def _without_surrogates(text: str) -> str:
    """Replace lone surrogates, which JSON can carry and UTF-8 cannot."""
    return re.sub(r"[\ud800-\udfff]", "\ufffd", text)
