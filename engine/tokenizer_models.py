"""Build the `tokenizers` model of each kind of GGUF vocabulary.

Control, unknown and unused tokens stay outside the models, so that no text merges into one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache

import tokenizers
from tokenizers import models, normalizers, pre_tokenizers

from engine.charsmap import check_charsmap
from engine.errors import UnsupportedModel
from engine.pre_tokenizers import PreTokenizer, build_pre_tokenizer, find_pre_tokenizer
from engine.vocabulary import (
    SPACE,
    Metadata,
    TokenType,
    Vocabulary,
    read_bool,
    read_str,
    read_token_id,
)

_PLAIN = (TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNDEFINED)
_CONTINUES = "##"
NEVER = "\U0010ffff"
"""Begins the names of pieces that no text may become; callers keep it out of what they encode."""
_MAX_MERGED = 512
"""Characters of a piece that merges lead to; trying every cut of a hostile megabyte would never end."""


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A model and what its kind does where the file says nothing."""

    model: tokenizers.Tokenizer
    add_bos: bool
    add_eos: bool
    add_space_prefix: bool
    is_byte_level: bool = False


def build_model(vocabulary: Vocabulary, file: Metadata) -> BuiltModel:
    """Build the model for `vocabulary.kind`. Raises: UnsupportedModel."""
    builders = {
        "gpt2": _bpe,
        "gemma4": _bpe,
        "whitespace": _word_bpe,
        "llama": _sentencepiece_bpe,
        "t5": _unigram,
        "bert": _wordpiece,
    }
    builder = builders.get(vocabulary.kind)
    if builder is None:
        known = ", ".join(builders)
        raise UnsupportedModel(f"tokenizer.ggml.model is {vocabulary.kind[:60]!r}; known are {known}")
    try:
        return builder(vocabulary, file)
    except UnsupportedModel:
        raise
    except Exception as e:  # the Rust constructors raise bare Exception
        raise UnsupportedModel(f"the {vocabulary.kind} vocabulary cannot be built: {e}") from e


@cache
def byte_alphabet() -> Mapping[str, int]:
    """Map the letters of byte-level BPE to bytes: printable ones stand for themselves, others for 256 up."""
    letters = {}
    n_shifted = 0
    for byte in range(256):
        if 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or 0xAE <= byte <= 0xFF:
            letters[chr(byte)] = byte
        else:
            letters[chr(256 + n_shifted)] = byte
            n_shifted += 1
    return letters


def _plain_ids(vocabulary: Vocabulary, types: Iterable[TokenType] = _PLAIN) -> dict[str, int]:
    wanted = frozenset(types)
    return {
        text: i
        for i, text in enumerate(vocabulary.tokens)
        if vocabulary.types[i] in wanted and not any("\ud800" <= c <= "\udfff" for c in text)
    }


def _bpe(vocabulary: Vocabulary, file: Metadata) -> BuiltModel:
    cuts = find_pre_tokenizer("gemma4" if vocabulary.kind == "gemma4" else vocabulary.pre)
    ids = _plain_ids(vocabulary)
    merges = _merges(vocabulary, ids)
    if not cuts.writes_bytes:
        return _spaced_bpe(vocabulary, file, cuts, ids, merges)
    model = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=merges, ignore_merges=cuts.ignore_merges))
    model.pre_tokenizer = build_pre_tokenizer(cuts)
    add_space_prefix = read_bool(file, "tokenizer.ggml.add_space_prefix", False)
    return BuiltModel(model, cuts.add_bos, False, add_space_prefix, is_byte_level=True)


def _merges(vocabulary: Vocabulary, ids: Mapping[str, int]) -> list[tuple[str, str]]:
    if not vocabulary.merges:
        raise UnsupportedModel(f"tokenizer.ggml.merges is missing or empty in a {vocabulary.kind} vocabulary")
    return [(a, b) for a, b in vocabulary.merges if a in ids and b in ids and a + b in ids]


def _spaced_bpe(
    vocabulary: Vocabulary,
    file: Metadata,
    cuts: PreTokenizer,
    ids: dict[str, int],
    merges: list[tuple[str, str]],
) -> BuiltModel:
    """Build Gemma 4's kind: text with U+2581 for spaces, merged line by line."""
    known = set(merges)
    # Runs of line ends are tokens, whatever the merges say.
    runs = sorted(text for text in ids if len(text) > 1 and not text.strip("\n"))
    added = [(run[:cut], run[cut:]) for run in runs for cut in range(1, len(run))]
    merges = merges + [pair for pair in added if pair not in known and pair[0] in ids and pair[1] in ids]
    unknown = read_token_id(file, "tokenizer.ggml.unknown_token_id", len(vocabulary.tokens))
    unknown_text = vocabulary.tokens[3 if unknown is None and len(vocabulary.tokens) > 3 else unknown or 0]
    byte_ids = _plain_ids(vocabulary, (TokenType.BYTE,))
    model = tokenizers.Tokenizer(
        models.BPE(
            vocab=ids | byte_ids | {unknown_text: vocabulary.tokens.index(unknown_text)},
            merges=merges,
            unk_token=unknown_text,
            byte_fallback=True,
        )
    )
    model.normalizer = normalizers.Replace(" ", SPACE)
    model.pre_tokenizer = build_pre_tokenizer(cuts)
    add_space_prefix = read_bool(file, "tokenizer.ggml.add_space_prefix", False)
    return BuiltModel(model, cuts.add_bos, add_eos=False, add_space_prefix=add_space_prefix)


def _word_bpe(vocabulary: Vocabulary, file: Metadata) -> BuiltModel:
    """Build the kind of jina-embeddings-v2-base-zh: words without spaces, merged from characters."""
    ids = _plain_ids(vocabulary)
    unknown = read_token_id(file, "tokenizer.ggml.unknown_token_id", len(vocabulary.tokens))
    unknown_text = None if unknown is None else vocabulary.tokens[unknown]
    if unknown_text is not None and unknown is not None:
        ids[unknown_text] = unknown
    model = tokenizers.Tokenizer(
        models.BPE(vocab=ids, merges=_merges(vocabulary, ids), unk_token=unknown_text)
    )
    if read_bool(file, "tokenizer.ggml.normalizer.lowercase", False):
        model.normalizer = normalizers.Lowercase()
    model.pre_tokenizer = pre_tokenizers.Whitespace()
    return BuiltModel(model, add_bos=True, add_eos=True, add_space_prefix=False)


def _sentencepiece_bpe(vocabulary: Vocabulary, file: Metadata) -> BuiltModel:
    if not vocabulary.scores:
        raise UnsupportedModel("tokenizer.ggml.scores is missing in a llama vocabulary")
    ids = _plain_ids(vocabulary)
    merges: list[tuple[float, int, str, str]] = []
    for text, i in ids.items():
        if len(text) > _MAX_MERGED:
            continue
        merges.extend(
            (-vocabulary.scores[i], i, text[:cut], text[cut:])
            for cut in range(1, len(text))
            if text[:cut] in ids and text[cut:] in ids
        )
    # Highest score first. Pairs that make the same token cannot share a rank here; shorter left part first.
    merges.sort(key=lambda merge: (merge[0], merge[1]))
    byte_ids = _plain_ids(vocabulary, (TokenType.BYTE,))
    unknown = read_token_id(file, "tokenizer.ggml.unknown_token_id", len(vocabulary.tokens))
    unknown_text = vocabulary.tokens[unknown if unknown is not None else 0]
    model = tokenizers.Tokenizer(
        models.BPE(
            vocab=ids | byte_ids | {unknown_text: vocabulary.tokens.index(unknown_text)},
            merges=[(left, right) for _, _, left, right in merges],
            unk_token=unknown_text,
            byte_fallback=True,
        )
    )
    add_space_prefix = read_bool(file, "tokenizer.ggml.add_space_prefix", True)
    return BuiltModel(model, add_bos=True, add_eos=False, add_space_prefix=add_space_prefix)


def _unigram(vocabulary: Vocabulary, file: Metadata) -> BuiltModel:
    if not vocabulary.scores:
        raise UnsupportedModel("tokenizer.ggml.scores is missing in a t5 vocabulary")
    unknown = read_token_id(file, "tokenizer.ggml.unknown_token_id", len(vocabulary.tokens))
    if unknown is None:
        unknown = vocabulary.types.index(TokenType.UNKNOWN) if TokenType.UNKNOWN in vocabulary.types else 2
    if unknown >= len(vocabulary.tokens):
        raise UnsupportedModel("tokenizer.ggml.unknown_token_id is missing in a t5 vocabulary")
    plain = _plain_ids(vocabulary, (*_PLAIN, TokenType.BYTE, TokenType.UNUSED))
    normal = [s for s, t in zip(vocabulary.scores, vocabulary.types, strict=True) if t is TokenType.NORMAL]
    # The model numbers its pieces by place: what no text may become stands there under a name that no text
    # has, and with a score that leaves the price of unknown characters as it is.
    lowest = min(normal, default=0.0)
    pieces = [
        (text, vocabulary.scores[i]) if plain.get(text) == i else (f"{NEVER}{i}", lowest)
        for i, text in enumerate(vocabulary.tokens)
    ]
    model = tokenizers.Tokenizer(
        models.Unigram(pieces, unk_id=unknown, byte_fallback=TokenType.BYTE in vocabulary.types)
    )
    steps: list[normalizers.Normalizer] = []
    if vocabulary.charsmap:
        check_charsmap(vocabulary.charsmap)
        steps.append(normalizers.Precompiled(vocabulary.charsmap))
    if read_bool(file, "tokenizer.ggml.remove_extra_whitespaces", False):
        steps += [
            normalizers.Replace(tokenizers.Regex("^ +| +$"), ""),
            normalizers.Replace(tokenizers.Regex(" {2,}"), " "),
        ]
    steps.append(normalizers.Replace(" ", SPACE))
    add_space_prefix = read_bool(file, "tokenizer.ggml.add_space_prefix", False)
    if add_space_prefix:
        steps.append(normalizers.Prepend(SPACE))
    model.normalizer = normalizers.Sequence(steps)
    # Files of encoders that name a BOS token put it first; those of T5 have none.
    is_encoder = read_str(file, "general.architecture") not in (None, "t5", "t5encoder")
    return BuiltModel(model, add_bos=is_encoder, add_eos=True, add_space_prefix=add_space_prefix)


def _wordpiece(vocabulary: Vocabulary, file: Metadata) -> BuiltModel:
    ids: dict[str, int] = {}
    for i, text in enumerate(vocabulary.tokens):
        # GGUF writes the start of a word as U+2581; HF marks what continues one instead.
        if text.startswith(SPACE):
            ids[text[1:]] = i
        elif vocabulary.types[i] in _PLAIN and not (text.startswith("[") and text.endswith("]")):
            ids[_CONTINUES + text] = i
    unknown = read_token_id(file, "tokenizer.ggml.unknown_token_id", len(vocabulary.tokens))
    if unknown is None:
        unknown = next((i for i, text in enumerate(vocabulary.tokens) if text == "[UNK]"), None)
    if unknown is None:
        raise UnsupportedModel("tokenizer.ggml.unknown_token_id is missing in a bert vocabulary")
    unknown_text = vocabulary.tokens[unknown]
    ids[unknown_text] = unknown
    lowercase = read_bool(file, "tokenizer.ggml.normalizer.lowercase", True)
    strip_accents = read_bool(file, "tokenizer.ggml.normalizer.strip_accents", lowercase)
    model = tokenizers.Tokenizer(
        models.WordPiece(vocab=ids, unk_token=unknown_text, max_input_chars_per_word=100)
    )
    model.normalizer = normalizers.BertNormalizer(
        clean_text=True, handle_chinese_chars=True, strip_accents=strip_accents, lowercase=lowercase
    )
    model.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return BuiltModel(model, add_bos=True, add_eos=True, add_space_prefix=True)
