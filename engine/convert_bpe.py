"""Write byte-pair vocabularies as GGUF keys: tokenizer.json's, by ranks or by scores, and tiktoken's."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf

from engine.convert_tokens import Vocab, added_in_config, added_tokens, is_byte, put_added, section, steps
from engine.errors import ConversionError
from engine.pre_tokenizers import GPT2_PATTERN, PRE_TOKENIZERS
from engine.tiktoken_vocab import read_tiktoken
from engine.vocabulary import TokenType


def write_bpe(writer: gguf.GGUFWriter, tokenizer: Mapping[str, Any], n_vocab: int) -> None:
    """Write the byte-pair vocabulary of a tokenizer.json. Raises: ConversionError."""
    model = section(tokenizer, "model")
    pieces = section(model, "vocab")
    merges = _read_merges(model)
    by_scores = model.get("byte_fallback") is True
    vocab = Vocab()
    # SentencePiece ranks tokens, not pairs: a token scores as the first pair that makes it.
    rank: dict[str, int] = {}
    if by_scores:
        for i, (left, right) in enumerate(merges):
            rank.setdefault(left + right, i)
    unknown = model.get("unk_token")
    for text, token_id in pieces.items():
        kind = TokenType.NORMAL
        if by_scores and text == unknown:
            kind = TokenType.UNKNOWN
        elif by_scores and is_byte(text):
            kind = TokenType.BYTE
        vocab.put(token_id, text, kind, -float(rank.get(text, len(merges))))
    put_added(vocab, [entry for entry in added_tokens(tokenizer) if entry.get("content") != unknown])
    if by_scores:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
        writer.add_add_space_prefix(_puts_space_first(tokenizer))
    else:
        if section(tokenizer, "pre_tokenizer").get("type") == "Whitespace":
            _write_words(writer, tokenizer)
        else:
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre(find_pre(tokenizer))
        # Byte-level pieces hold no spaces, so a space can divide the pair.
        writer.add_token_merges([f"{left} {right}" for left, right in merges])
    vocab.write(writer, n_vocab, scored=by_scores)


def _puts_space_first(tokenizer: Mapping[str, Any]) -> bool:
    """Say whether a text is cut as if a space stood before it: Llama's are, Gemma's are not."""
    walked = [*steps(tokenizer.get("normalizer")), *steps(tokenizer.get("pre_tokenizer"))]
    metaspace = next((step for step in walked if step.get("type") == "Metaspace"), None)
    if metaspace is not None:
        return metaspace.get("prepend_scheme", "always") != "never" and (
            metaspace.get("add_prefix_space") is not False
        )
    return any(step.get("type") == "Prepend" for step in walked)


def _write_words(writer: gguf.GGUFWriter, tokenizer: Mapping[str, Any]) -> None:
    """Write the keys of words that are merged from characters, as jina-embeddings-v2-base-zh has them."""
    kinds = [
        step.get("type") for step in steps(tokenizer.get("normalizer")) if step.get("type") != "Sequence"
    ]
    if kinds not in ([], ["Lowercase"]):
        raise ConversionError(f"tokenizer.json normalises by {kinds!r}; nothing or Lowercase is expected")
    writer.add_tokenizer_model("whitespace")
    writer.add_tokenizer_pre("whitespace")
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", bool(kinds))


def find_pre(tokenizer: Mapping[str, Any]) -> str:
    """Return the `tokenizer.ggml.pre` whose expressions a tokenizer.json has. Raises: ConversionError."""
    patterns = tuple(_patterns(tokenizer.get("pre_tokenizer")))
    ignores = section(tokenizer, "model").get("ignore_merges") is True
    same = [name for name, cuts in PRE_TOKENIZERS.items() if cuts.patterns == patterns]
    if not same:
        raise ConversionError(
            f"tokenizer.json cuts text by {patterns!r:.200}, a pre-tokenizer not known here"
        )
    return next((name for name in same if PRE_TOKENIZERS[name].ignore_merges is ignores), same[0])


def _patterns(step: object) -> Iterator[str]:
    if not isinstance(step, Mapping):
        return
    kind = step.get("type")
    if kind == "Sequence":
        for inner in step.get("pretokenizers", ()):
            yield from _patterns(inner)
    elif kind == "Split" and isinstance(pattern := step.get("pattern"), Mapping):
        yield str(pattern.get("Regex", pattern.get("String")))
    elif kind == "Digits":
        yield r"\p{N}" if step.get("individual_digits") else r"\p{N}+"
    elif kind == "ByteLevel":
        if step.get("use_regex", True):
            yield GPT2_PATTERN
    else:
        yield f"<{kind}>"


def _read_merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise ConversionError("tokenizer.json has no list of merges")
    pairs = []
    for i, merge in enumerate(merges):
        parts = merge.split(" ") if isinstance(merge, str) else merge
        if not isinstance(parts, list) or len(parts) != 2 or not all(isinstance(p, str) for p in parts):
            raise ConversionError(
                f"tokenizer.json has the merge {merge!r:.60} at {i}; two parts are expected"
            )
        pairs.append((parts[0], parts[1]))
    return pairs


def write_tiktoken(
    writer: gguf.GGUFWriter, path: Path, pre: str, special: Sequence[str], n_vocab: int
) -> None:
    """Write a vocabulary by rank; `special` stands behind it, where tokenizer_config.json names none."""
    ranked = read_tiktoken(path)
    vocab = Vocab()
    for token_id, text in enumerate(ranked.tokens):
        vocab.put(token_id, text, TokenType.NORMAL)
    added = added_in_config(path.parent)
    if added:
        put_added(vocab, added)
    else:
        for i, text in enumerate(special):
            vocab.put(len(ranked.tokens) + i, text, TokenType.CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_merges([f"{left} {right}" for left, right in ranked.merges])
    vocab.write(writer, n_vocab, scored=False)
