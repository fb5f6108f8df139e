"""Write Unigram vocabularies as GGUF keys: those of tokenizer.json, and XLM-RoBERTa's own model file."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf

from engine.charsmap import check_charsmap
from engine.convert_tokens import Vocab, added_tokens, is_byte, put_added, section, steps
from engine.errors import ConversionError, UnsupportedModel
from engine.sentencepiece_model import read_sentencepiece
from engine.vocabulary import TokenType


def write_unigram(writer: gguf.GGUFWriter, tokenizer: Mapping[str, Any], n_vocab: int) -> None:
    """Write the Unigram vocabulary of a tokenizer.json. Raises: ConversionError."""
    model = section(tokenizer, "model")
    pieces = model.get("vocab")
    if not isinstance(pieces, list) or not all(_is_scored(piece) for piece in pieces):
        raise ConversionError("tokenizer.json has no list of pieces with scores")
    special = {str(entry.get("content")) for entry in added_tokens(tokenizer) if entry.get("special")}
    vocab = Vocab()
    for token_id, (text, score) in enumerate(pieces):
        kind = TokenType.NORMAL
        if token_id == model.get("unk_id"):
            kind = TokenType.UNKNOWN
        elif text in special:
            kind = TokenType.CONTROL
        elif model.get("byte_fallback") is True and is_byte(text):
            kind = TokenType.BYTE
        vocab.put(token_id, text, kind, float(score))
    unknown = vocab.tokens.get(model.get("unk_id", -1))
    put_added(
        vocab,
        [
            entry
            for entry in added_tokens(tokenizer)
            if entry.get("content") != unknown and entry.get("id") not in vocab.tokens
        ],
    )
    walked = [*steps(tokenizer.get("normalizer")), *steps(tokenizer.get("pre_tokenizer"))]
    kinds = {step.get("type") for step in walked}
    metaspace = next((step for step in walked if step.get("type") == "Metaspace"), {})
    squeezes = any(
        step.get("type") == "Replace" and "{2,}" in str(section(step, "pattern").get("Regex"))
        for step in walked
    )
    _write_keys(
        writer,
        charsmap=_decode_charsmap(walked),
        add_prefix=metaspace.get("prepend_scheme", "always") != "never"
        and metaspace.get("add_prefix_space") is not False,
        remove_spaces=squeezes or "WhitespaceSplit" in kinds,
    )
    vocab.write(writer, n_vocab, scored=True)


def write_fairseq(writer: gguf.GGUFWriter, path: Path, n_vocab: int) -> None:
    """Write XLM-RoBERTa's vocabulary: fairseq puts its own four tokens first, and the mask last."""
    model = read_sentencepiece(path)
    if model.kind != "unigram":
        raise ConversionError(f"{path} is a SentencePiece model of type {model.kind}; unigram is expected")
    vocab = Vocab()
    for token_id, text in enumerate(("<s>", "<pad>", "</s>", "<unk>")):
        vocab.put(token_id, text, TokenType.UNKNOWN if text == "<unk>" else TokenType.CONTROL)
    for place, piece in enumerate(model.pieces[3:], 4):
        vocab.put(place, piece.text, piece.type, piece.score)
    vocab.put(len(model.pieces) + 1, "<mask>", TokenType.CONTROL)
    _write_keys(
        writer,
        charsmap=model.charsmap,
        add_prefix=model.add_dummy_prefix,
        remove_spaces=model.remove_extra_whitespaces,
    )
    vocab.write(writer, n_vocab, scored=True)
    writer.add_unk_token_id(3)


def _write_keys(writer: gguf.GGUFWriter, *, charsmap: bytes, add_prefix: bool, remove_spaces: bool) -> None:
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


def _decode_charsmap(walked: Sequence[Mapping[str, Any]]) -> bytes:
    for step in walked:
        if step.get("type") == "Precompiled":
            try:
                return base64.b64decode(str(step.get("precompiled_charsmap")), validate=True)
            except binascii.Error as error:
                raise ConversionError(f"tokenizer.json has a charsmap that is no base64: {error}") from error
    return b""


def _is_scored(piece: object) -> bool:
    return (
        isinstance(piece, list)
        and len(piece) == 2
        and isinstance(piece[0], str)
        and isinstance(piece[1], int | float)
    )
