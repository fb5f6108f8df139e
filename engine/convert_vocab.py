"""Write a Hugging Face folder's tokenizer as GGUF keys.

WordPiece from tokenizer.json or vocab.txt; SentencePiece from tokenizer.model, or from a tokenizer.json with
byte fallback; Unigram from tokenizer.json or sentencepiece.bpe.model; byte-level BPE from tokenizer.json,
whose pre-tokenizer is recognised by its expressions.
"""

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf

from engine.charsmap import check_charsmap
from engine.conversion import VocabKind
from engine.errors import ConversionError, UnsupportedModel
from engine.pre_tokenizers import GPT2_PATTERN, PRE_TOKENIZERS
from engine.safetensors_folder import read_json
from engine.sentencepiece_model import read_sentencepiece
from engine.tiktoken_vocab import looks_like_tiktoken, read_tiktoken
from engine.vocabulary import SPACE, STRIPS_LEFT_KEY, STRIPS_RIGHT_KEY, TokenType

_BERT_SPECIAL = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "bos": "[CLS]", "mask": "[MASK]"}
_SPECIAL_TYPES = ("bos", "eos", "unk", "sep", "pad", "mask")
_KEY_NAMES = {"bos": "bos", "eos": "eos", "sep": "seperator", "unk": "unknown"}
_ADDED_SCORE = -1000.0
# Behind the ranks of the first Qwen, whose folder names them in code only.
_QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))


@dataclass(slots=True)
class _Vocab:
    """Tokens by id as they are collected; ids without a token are padded as unused."""

    tokens: dict[int, str] = field(default_factory=dict)
    types: dict[int, TokenType] = field(default_factory=dict)
    scores: dict[int, float] = field(default_factory=dict)

    def put(self, token_id: Any, text: Any, kind: TokenType, score: float = 0.0) -> None:
        if isinstance(token_id, bool) or not isinstance(token_id, int) or not isinstance(text, str):
            raise ConversionError(
                f"the vocabulary maps {text!r:.60} to {token_id!r:.60}; text to id is expected"
            )
        self.tokens[token_id], self.types[token_id], self.scores[token_id] = text, kind, score

    def write(self, writer: gguf.GGUFWriter, n_vocab: int, *, scored: bool) -> None:
        outside = [i for i in self.tokens if not 0 <= i < n_vocab]
        if outside:
            raise ConversionError(f"token id {outside[0]} is outside the vocab_size {n_vocab} of config.json")
        ids = range(n_vocab)
        writer.add_token_list([self.tokens.get(i, f"[PAD{i}]") for i in ids])
        if scored:
            writer.add_token_scores([self.scores.get(i, -10000.0) for i in ids])
        writer.add_token_types([int(self.types.get(i, TokenType.UNUSED)) for i in ids])


def write_vocab(writer: gguf.GGUFWriter, folder: Path, *, kind: VocabKind, n_vocab: int) -> None:
    """Write tokens, types, scores, merges, special ids and chat template. Raises: ConversionError."""
    json_path = folder / "tokenizer.json"
    tokenizer = read_json(json_path) if json_path.exists() else {}
    model_type = _section(tokenizer, "model").get("type")
    if model_type == "Unigram":
        _write_unigram(writer, tokenizer, n_vocab)
    elif (folder / "qwen.tiktoken").exists():
        _write_tiktoken(writer, folder / "qwen.tiktoken", "qwen2", _QWEN_SPECIAL, n_vocab)
    elif looks_like_tiktoken(folder / "tokenizer.model"):
        _write_tiktoken(writer, folder / "tokenizer.model", "chatglm-bpe", (), n_vocab)
    elif (folder / "tokenizer.model").exists():
        _write_sentencepiece(writer, folder, n_vocab)
    elif (folder / "sentencepiece.bpe.model").exists() and model_type is None:
        _write_fairseq(writer, folder / "sentencepiece.bpe.model", n_vocab)
    elif model_type == "BPE":
        _write_bpe(writer, tokenizer, n_vocab)
    elif kind == "encoder":
        _write_wordpiece(writer, folder, tokenizer, n_vocab)
    else:
        raise ConversionError(f"neither tokenizer.model nor a tokenizer.json of type BPE is in {folder}")
    _write_special(writer, folder, kind, n_vocab)
    _write_strips(writer, _added_tokens(tokenizer) or _added_in_config(folder), n_vocab)


def find_pre(tokenizer: Mapping[str, Any]) -> str:
    """Return the `tokenizer.ggml.pre` whose expressions a tokenizer.json has. Raises: ConversionError."""
    patterns = tuple(_patterns(tokenizer.get("pre_tokenizer")))
    ignores = _section(tokenizer, "model").get("ignore_merges") is True
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


def _section(values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    section = values.get(key)
    return section if isinstance(section, Mapping) else {}


def _added_tokens(tokenizer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    added = tokenizer.get("added_tokens")
    return [entry for entry in added if isinstance(entry, Mapping)] if isinstance(added, list) else []


def _looks_special(text: str) -> bool:
    """Say whether a token is a control token although its file does not say so, as llama.cpp does."""
    if text in ("<pad>", "<mask>", "<2mass>", "[@BOS@]"):
        return True
    ends = (("<|", "|>"), ("<\uff5c", "\uff5c>"), ("<unused", ">"))
    return any(text.startswith(start) and text.endswith(end) for start, end in ends)


def _put_added(vocab: _Vocab, added: Sequence[Mapping[str, Any]]) -> None:
    for entry in added:
        text = entry.get("content")
        special = entry.get("special") is True or _looks_special(str(text))
        kind = TokenType.CONTROL if special else TokenType.USER_DEFINED
        if kind is TokenType.USER_DEFINED and isinstance(text, str):
            text = text.replace(SPACE, " ")
        vocab.put(entry.get("id"), text, kind, _ADDED_SCORE)


def _write_wordpiece(
    writer: gguf.GGUFWriter, folder: Path, tokenizer: Mapping[str, Any], n_vocab: int
) -> None:
    pieces = _section(_section(tokenizer, "model"), "vocab")
    if not pieces:
        path = folder / "vocab.txt"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as e:
            raise ConversionError(f"neither tokenizer.json nor vocab.txt can be read in {folder}: {e}") from e
        pieces = {line: i for i, line in enumerate(lines)}
    special = {str(entry.get("content")) for entry in _added_tokens(tokenizer) if entry.get("special")}
    special |= set(_BERT_SPECIAL.values())
    vocab = _Vocab()
    for text, token_id in pieces.items():
        if text in special:
            vocab.put(token_id, text, TokenType.CONTROL)
        elif text.startswith("##"):
            vocab.put(token_id, text[2:], TokenType.NORMAL)
        else:
            vocab.put(token_id, SPACE + text, TokenType.NORMAL)
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("default")
    vocab.write(writer, n_vocab, scored=False)
    normalizer = _section(tokenizer, "normalizer")
    lowercase = normalizer.get("lowercase", True) is not False
    accents = normalizer.get("strip_accents")
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", lowercase)
    writer.add_bool(
        "tokenizer.ggml.normalizer.strip_accents", lowercase if accents is None else bool(accents)
    )


def _write_unigram(writer: gguf.GGUFWriter, tokenizer: Mapping[str, Any], n_vocab: int) -> None:
    model = _section(tokenizer, "model")
    pieces = model.get("vocab")
    if not isinstance(pieces, list) or not all(_is_scored(piece) for piece in pieces):
        raise ConversionError("tokenizer.json has no list of pieces with scores")
    special = {str(entry.get("content")) for entry in _added_tokens(tokenizer) if entry.get("special")}
    vocab = _Vocab()
    for token_id, (text, score) in enumerate(pieces):
        kind = TokenType.NORMAL
        if token_id == model.get("unk_id"):
            kind = TokenType.UNKNOWN
        elif text in special:
            kind = TokenType.CONTROL
        elif model.get("byte_fallback") is True and _is_byte(text):
            kind = TokenType.BYTE
        vocab.put(token_id, text, kind, float(score))
    unknown = vocab.tokens.get(model.get("unk_id", -1))
    _put_added(
        vocab,
        [
            entry
            for entry in _added_tokens(tokenizer)
            if entry.get("content") != unknown and entry.get("id") not in vocab.tokens
        ],
    )
    steps = [*_steps(tokenizer.get("normalizer")), *_steps(tokenizer.get("pre_tokenizer"))]
    kinds = {step.get("type") for step in steps}
    metaspace = next((step for step in steps if step.get("type") == "Metaspace"), {})
    squeezes = any(
        step.get("type") == "Replace" and "{2,}" in str(_section(step, "pattern").get("Regex"))
        for step in steps
    )
    _write_unigram_keys(
        writer,
        charsmap=_decode_charsmap(steps),
        add_prefix=metaspace.get("prepend_scheme", "always") != "never"
        and metaspace.get("add_prefix_space") is not False,
        remove_spaces=squeezes or "WhitespaceSplit" in kinds,
    )
    vocab.write(writer, n_vocab, scored=True)


def _write_fairseq(writer: gguf.GGUFWriter, path: Path, n_vocab: int) -> None:
    """Write XLM-RoBERTa's vocabulary: fairseq puts its own four tokens first, and the mask last."""
    model = read_sentencepiece(path)
    if model.kind != "unigram":
        raise ConversionError(f"{path} is a SentencePiece model of type {model.kind}; unigram is expected")
    vocab = _Vocab()
    for token_id, text in enumerate(("<s>", "<pad>", "</s>", "<unk>")):
        vocab.put(token_id, text, TokenType.UNKNOWN if text == "<unk>" else TokenType.CONTROL)
    for place, piece in enumerate(model.pieces[3:], 4):
        vocab.put(place, piece.text, piece.type, piece.score)
    vocab.put(len(model.pieces) + 1, "<mask>", TokenType.CONTROL)
    _write_unigram_keys(
        writer,
        charsmap=model.charsmap,
        add_prefix=model.add_dummy_prefix,
        remove_spaces=model.remove_extra_whitespaces,
    )
    vocab.write(writer, n_vocab, scored=True)
    writer.add_unk_token_id(3)


def _write_unigram_keys(
    writer: gguf.GGUFWriter, *, charsmap: bytes, add_prefix: bool, remove_spaces: bool
) -> None:
    writer.add_tokenizer_model("t5")
    writer.add_tokenizer_pre("default")
    writer.add_add_space_prefix(add_prefix)
    writer.add_remove_extra_whitespaces(remove_spaces)
    if charsmap:
        try:
            check_charsmap(charsmap)
        except UnsupportedModel as error:
            raise ConversionError(f"the tokenizer's normalizer is odd: {error}") from error
        writer.add_precompiled_charsmap(charsmap)


def _decode_charsmap(steps: Sequence[Mapping[str, Any]]) -> bytes:
    for step in steps:
        if step.get("type") == "Precompiled":
            try:
                return base64.b64decode(str(step.get("precompiled_charsmap")), validate=True)
            except binascii.Error as error:
                raise ConversionError(f"tokenizer.json has a charsmap that is no base64: {error}") from error
    return b""


def _steps(step: object) -> Iterator[Mapping[str, Any]]:
    """Walk a normalizer or pre-tokenizer and what it is made of."""
    if isinstance(step, Mapping):
        yield step
        for key in ("normalizers", "pretokenizers"):
            for inner in step.get(key) or ():
                yield from _steps(inner)


def _is_scored(piece: object) -> bool:
    return (
        isinstance(piece, list)
        and len(piece) == 2
        and isinstance(piece[0], str)
        and isinstance(piece[1], int | float)
    )


def _is_byte(text: str) -> bool:
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def _write_sentencepiece(writer: gguf.GGUFWriter, folder: Path, n_vocab: int) -> None:
    model = read_sentencepiece(folder / "tokenizer.model")
    if model.kind != "bpe":
        raise ConversionError(
            f"{folder / 'tokenizer.model'} is a SentencePiece model of type {model.kind}; bpe is expected"
        )
    vocab = _Vocab()
    for token_id, piece in enumerate(model.pieces):
        vocab.put(token_id, piece.text, piece.type, piece.score)
    config_path = folder / "tokenizer_config.json"
    config = read_json(config_path) if config_path.exists() else {}
    _put_added(
        vocab,
        [
            entry
            for entry in _added_in_config(folder)
            if vocab.types.get(entry["id"]) is not TokenType.UNKNOWN
        ],
    )
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    vocab.write(writer, n_vocab, scored=True)
    writer.add_add_space_prefix(model.add_dummy_prefix and config.get("add_prefix_space") is not False)


def _write_tiktoken(
    writer: gguf.GGUFWriter, path: Path, pre: str, special: Sequence[str], n_vocab: int
) -> None:
    """Write a vocabulary by rank; `special` stands behind it, where tokenizer_config.json names none."""
    ranked = read_tiktoken(path)
    vocab = _Vocab()
    for token_id, text in enumerate(ranked.tokens):
        vocab.put(token_id, text, TokenType.NORMAL)
    added = _added_in_config(path.parent)
    if added:
        _put_added(vocab, added)
    else:
        for i, text in enumerate(special):
            vocab.put(len(ranked.tokens) + i, text, TokenType.CONTROL)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_merges([f"{left} {right}" for left, right in ranked.merges])
    vocab.write(writer, n_vocab, scored=False)


def _write_bpe(writer: gguf.GGUFWriter, tokenizer: Mapping[str, Any], n_vocab: int) -> None:
    model = _section(tokenizer, "model")
    pieces = _section(model, "vocab")
    merges = _read_merges(model)
    by_scores = model.get("byte_fallback") is True
    vocab = _Vocab()
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
        elif by_scores and _is_byte(text):
            kind = TokenType.BYTE
        vocab.put(token_id, text, kind, -float(rank.get(text, len(merges))))
    _put_added(vocab, [entry for entry in _added_tokens(tokenizer) if entry.get("content") != unknown])
    if by_scores:
        writer.add_tokenizer_model("llama")
        writer.add_tokenizer_pre("default")
    else:
        if _section(tokenizer, "pre_tokenizer").get("type") == "Whitespace":
            _write_words(writer, tokenizer)
        else:
            writer.add_tokenizer_model("gpt2")
            writer.add_tokenizer_pre(find_pre(tokenizer))
        # Byte-level pieces hold no spaces, so a space can divide the pair.
        writer.add_token_merges([f"{left} {right}" for left, right in merges])
    vocab.write(writer, n_vocab, scored=by_scores)


def _write_words(writer: gguf.GGUFWriter, tokenizer: Mapping[str, Any]) -> None:
    """Write the keys of words that are merged from characters, as jina-embeddings-v2-base-zh has them."""
    kinds = [
        step.get("type") for step in _steps(tokenizer.get("normalizer")) if step.get("type") != "Sequence"
    ]
    if kinds not in ([], ["Lowercase"]):
        raise ConversionError(f"tokenizer.json normalises by {kinds!r}; nothing or Lowercase is expected")
    writer.add_tokenizer_model("whitespace")
    writer.add_tokenizer_pre("whitespace")
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", bool(kinds))


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


def _write_strips(writer: gguf.GGUFWriter, added: Sequence[Mapping[str, Any]], n_vocab: int) -> None:
    """Write which special tokens swallow the blanks around them, for which GGUF has no key."""
    for key, side in ((STRIPS_LEFT_KEY, "lstrip"), (STRIPS_RIGHT_KEY, "rstrip")):
        ids = [entry["id"] for entry in added if entry.get(side) is True and isinstance(entry.get("id"), int)]
        ids = sorted(i for i in ids if 0 <= i < n_vocab)
        if ids:
            writer.add_array(key, ids)


def _added_in_config(folder: Path) -> list[Mapping[str, Any]]:
    path = folder / "tokenizer_config.json"
    decoder = _section(read_json(path) if path.exists() else {}, "added_tokens_decoder")
    return [
        {**entry, "id": int(token_id)}
        for token_id, entry in decoder.items()
        if isinstance(entry, Mapping) and token_id.isdecimal()
    ]


def _write_special(writer: gguf.GGUFWriter, folder: Path, kind: VocabKind, n_vocab: int) -> None:
    try:
        special = gguf.SpecialVocab(folder, n_vocab=n_vocab, special_token_types=_SPECIAL_TYPES)
        special.add_to_gguf(writer, quiet=True)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as e:  # it trusts its input
        raise ConversionError(f"the tokenizer's files in {folder} are odd: {e!r}") from e
    _write_ends_of_turns(writer, folder, special, n_vocab)
    written = special.special_token_ids
    tokens = writer.kv_data[0]["tokenizer.ggml.tokens"].value
    if writer.kv_data[0]["tokenizer.ggml.model"].value != "bert":
        if kind == "encoder":
            _write_ends(writer, special, tokens)
        return
    for name, text in _BERT_SPECIAL.items():
        if name not in written:
            if text not in tokens:
                raise ConversionError(f"the vocabulary has no {text}")
            getattr(writer, f"add_{name}_token_id")(tokens.index(text))


def _write_ends_of_turns(
    writer: gguf.GGUFWriter, folder: Path, special: gguf.SpecialVocab, n_vocab: int
) -> None:
    """Write what ends an answer besides EOS: chat models name it in generation_config.json only."""
    path = folder / "generation_config.json"
    ends = read_json(path).get("eos_token_id") if path.exists() else None
    known = set(special.special_token_ids.values())
    others = [i for i in ends if type(i) is int and 0 <= i < n_vocab] if isinstance(ends, list) else []
    others = [i for i in others if i not in known]
    for name, token_id in zip(("eot", "eom"), others, strict=False):
        getattr(writer, f"add_{name}_token_id")(token_id)


def _write_ends(writer: gguf.GGUFWriter, special: gguf.SpecialVocab, tokens: Sequence[str]) -> None:
    """Say that encoders put a token before and one after a text, where the files leave it to the library."""
    for name, text in (("bos", "<s>"), ("eos", "</s>"), ("sep", "</s>"), ("unk", "<unk>")):
        has_id = f"tokenizer.ggml.{_KEY_NAMES[name]}_token_id" in writer.kv_data[0]
        if not has_id and name not in special.special_token_ids and text in tokens:
            getattr(writer, f"add_{name}_token_id")(tokens.index(text))
    for name in ("bos", "eos"):
        if name not in special.add_special_token:
            getattr(writer, f"add_add_{name}_token")(True)
