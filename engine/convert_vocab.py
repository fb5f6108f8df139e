"""Write a Hugging Face folder's tokenizer as GGUF keys.

WordPiece from tokenizer.json or vocab.txt; SentencePiece from tokenizer.model, or from a tokenizer.json with
byte fallback; Unigram from tokenizer.json or sentencepiece.bpe.model; byte-level BPE from tokenizer.json,
whose pre-tokenizer is recognised by its expressions.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gguf

from engine.conversion import VocabKind
from engine.convert_bpe import write_bpe, write_tiktoken
from engine.convert_tokens import Vocab, added_in_config, added_tokens, put_added, section
from engine.convert_unigram import write_fairseq, write_unigram
from engine.errors import ConversionError
from engine.safetensors_folder import read_json
from engine.sentencepiece_model import read_sentencepiece
from engine.tiktoken_vocab import looks_like_tiktoken
from engine.vocabulary import SPACE, STRIPS_LEFT_KEY, STRIPS_RIGHT_KEY, TokenType

_BERT_SPECIAL = {"unk": "[UNK]", "sep": "[SEP]", "pad": "[PAD]", "bos": "[CLS]", "mask": "[MASK]"}
_SPECIAL_TYPES = ("bos", "eos", "unk", "sep", "pad", "mask")
_KEY_NAMES = {"bos": "bos", "eos": "eos", "sep": "seperator", "unk": "unknown"}
# Behind the pieces of ChatGLM 3, whose older folders name them in code only; ChatGLM 2 has the first five.
_GLM_SPECIAL = ("[MASK]", "[gMASK]", "[sMASK]", "sop", "eop")
_GLM_ROLES = ("<|system|>", "<|user|>", "<|assistant|>", "<|observation|>")
# Behind the ranks of the first Qwen, whose folder names them in code only.
_QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", *(f"<|extra_{i}|>" for i in range(205)))


def write_vocab(writer: gguf.GGUFWriter, folder: Path, *, kind: VocabKind, n_vocab: int) -> None:
    """Write tokens, types, scores, merges, special ids and chat template. Raises: ConversionError."""
    json_path = folder / "tokenizer.json"
    tokenizer = read_json(json_path) if json_path.exists() else {}
    model_type = section(tokenizer, "model").get("type")
    if model_type == "Unigram":
        write_unigram(writer, tokenizer, n_vocab)
    elif (folder / "qwen.tiktoken").exists():
        write_tiktoken(writer, folder / "qwen.tiktoken", "qwen2", _QWEN_SPECIAL, n_vocab)
    elif looks_like_tiktoken(folder / "tokenizer.model"):
        write_tiktoken(writer, folder / "tokenizer.model", "chatglm-bpe", (), n_vocab)
    elif (folder / "tokenizer.model").exists():
        _write_sentencepiece(writer, folder, n_vocab)
    elif (folder / "sentencepiece.bpe.model").exists() and model_type is None:
        write_fairseq(writer, folder / "sentencepiece.bpe.model", n_vocab)
    elif model_type == "BPE":
        write_bpe(writer, tokenizer, n_vocab)
    elif kind == "encoder":
        _write_wordpiece(writer, folder, tokenizer, n_vocab)
    else:
        raise ConversionError(f"neither tokenizer.model nor a tokenizer.json of type BPE is in {folder}")
    _write_special(writer, folder, kind, n_vocab)
    _write_strips(writer, added_tokens(tokenizer) or added_in_config(folder), n_vocab)


def _write_wordpiece(
    writer: gguf.GGUFWriter, folder: Path, tokenizer: Mapping[str, Any], n_vocab: int
) -> None:
    pieces = section(section(tokenizer, "model"), "vocab")
    if not pieces:
        path = folder / "vocab.txt"
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except (OSError, ValueError) as e:
            raise ConversionError(f"neither tokenizer.json nor vocab.txt can be read in {folder}: {e}") from e
        pieces = {line: i for i, line in enumerate(lines)}
    special = {str(entry.get("content")) for entry in added_tokens(tokenizer) if entry.get("special")}
    special |= set(_BERT_SPECIAL.values())
    vocab = Vocab()
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
    normalizer = section(tokenizer, "normalizer")
    lowercase = normalizer.get("lowercase", True) is not False
    accents = normalizer.get("strip_accents")
    writer.add_bool("tokenizer.ggml.normalizer.lowercase", lowercase)
    writer.add_bool(
        "tokenizer.ggml.normalizer.strip_accents", lowercase if accents is None else bool(accents)
    )


def _write_sentencepiece(writer: gguf.GGUFWriter, folder: Path, n_vocab: int) -> None:
    model = read_sentencepiece(folder / "tokenizer.model")
    if model.kind != "bpe":
        raise ConversionError(
            f"{folder / 'tokenizer.model'} is a SentencePiece model of type {model.kind}; bpe is expected"
        )
    vocab = Vocab()
    for token_id, piece in enumerate(model.pieces):
        vocab.put(token_id, piece.text, piece.type, piece.score)
    config_path = folder / "tokenizer_config.json"
    config = read_json(config_path) if config_path.exists() else {}
    put_added(
        vocab,
        [entry for entry in added_in_config(folder) if vocab.types.get(entry["id"]) is not TokenType.UNKNOWN],
    )
    if config.get("tokenizer_class") == "ChatGLMTokenizer":
        _put_glm_special(writer, vocab, folder, n_pieces=len(model.pieces))
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    vocab.write(writer, n_vocab, scored=True)
    writer.add_add_space_prefix(model.add_dummy_prefix and config.get("add_prefix_space") is not False)


def _write_strips(writer: gguf.GGUFWriter, added: Sequence[Mapping[str, Any]], n_vocab: int) -> None:
    """Write which special tokens swallow the blanks around them, for which GGUF has no key."""
    for key, side in ((STRIPS_LEFT_KEY, "lstrip"), (STRIPS_RIGHT_KEY, "rstrip")):
        ids = [entry["id"] for entry in added if entry.get(side) is True and isinstance(entry.get("id"), int)]
        ids = sorted(i for i in ids if 0 <= i < n_vocab)
        if ids:
            writer.add_array(key, ids)


def _put_glm_special(writer: gguf.GGUFWriter, vocab: Vocab, folder: Path, *, n_pieces: int) -> None:
    """Add ChatGLM's special tokens, where no file names them, and say that no BOS token begins its texts."""
    code = folder / "tokenization_chatglm.py"
    is_second = "chatglm2" in folder.resolve().name.lower() or (
        code.exists() and _GLM_ROLES[0] not in code.read_text("utf-8", "replace")
    )
    names = _GLM_SPECIAL if is_second else _GLM_SPECIAL + _GLM_ROLES
    known = set(vocab.tokens.values())
    if not known.intersection(names):
        for i, text in enumerate(names):
            vocab.put(n_pieces + i, text, TokenType.CONTROL, -1000.0)
    ends = {text: token_id for token_id, text in vocab.tokens.items()}
    if "<|user|>" in ends:
        writer.add_eot_token_id(ends["<|user|>"])
    writer.add_add_bos_token(False)


def _write_special(writer: gguf.GGUFWriter, folder: Path, kind: VocabKind, n_vocab: int) -> None:
    try:
        special = gguf.SpecialVocab(folder, n_vocab=n_vocab, special_token_types=_SPECIAL_TYPES)
        special.chat_template = _template_files(folder) or special.chat_template
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


def _template_files(folder: Path) -> list[dict[str, str]]:
    """Read the chat templates in files of their own, which `transformers` prefers to those in JSON."""
    default = folder / "chat_template.jinja"
    paths = {path.stem: path for path in sorted(folder.glob("additional_chat_templates/*.jinja"))}
    if default.is_file():
        paths["default"] = default
    return [{"name": name, "template": path.read_text("utf-8")} for name, path in paths.items()]


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
