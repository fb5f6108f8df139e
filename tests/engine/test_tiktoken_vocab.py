"""Vocabularies by rank, against the merges that they were made from."""

import base64
import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from engine import _native as native
from engine.convert import convert
from engine.errors import ConversionError
from engine.pre_tokenizers import build_pre_tokenizer, find_pre_tokenizer
from engine.tiktoken_vocab import looks_like_tiktoken, read_tiktoken
from engine.tokenizer import load_tokenizer

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TINY = Path(__file__).parents[1] / "data" / "tiny"
TEXTS = [
    "the theme of the thesis",
    "\u5317\u4eac\u662f\u4e2d\u56fd\u7684\u9996\u90fd\uff0c\u5317\u4eac",
    "  them, 123 then ",
]


def trained() -> Tokenizer:
    """A byte-level BPE whose ids are ranks: the bytes, then merges in their order."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = build_pre_tokenizer(find_pre_tokenizer("qwen2"))
    trainer = trainers.BpeTrainer(
        vocab_size=280, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS * 20, trainer)
    return tokenizer


def letters() -> dict[str, int]:
    """The byte that each letter of byte-level BPE stands for, as `tokenizers` writes it."""
    cut = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    pairs = {}
    for code in range(0x250):
        text = chr(code)
        written = cut.pre_tokenize_str(text)[0][0]
        pairs.update(zip(written, text.encode(), strict=True))
    return pairs


def write(tokenizer: Tokenizer, path: Path) -> None:
    byte_of = letters()
    # Bytes that no character of this range has are left: their letters stand for themselves.
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda entry: entry[1])
    rest = iter(sorted(set(range(256)) - set(byte_of.values())))
    for text, _ in tokens:
        if len(text) == 1 and text not in byte_of:
            byte_of[text] = next(rest)
    lines = [base64.b64encode(bytes(byte_of[c] for c in text)) + b" %d" % i for text, i in tokens]
    path.write_bytes(b"\n".join(lines) + b"\n")


def test_merges_come_back(tmp_path: Path) -> None:
    tokenizer = trained()
    write(tokenizer, tmp_path / "qwen.tiktoken")
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    assert looks_like_tiktoken(tmp_path / "qwen.tiktoken")
    assert not looks_like_tiktoken(tmp_path / "tokenizer.json")
    ranked = read_tiktoken(tmp_path / "qwen.tiktoken")
    made = [left + right for left, right in ranked.merges]
    assert made == [
        text for text, i in sorted(tokenizer.get_vocab().items(), key=lambda e: e[1]) if len(text) > 1
    ]


def test_a_qwen_folder_gets_its_vocabulary(tmp_path: Path) -> None:
    tokenizer = trained()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).symlink_to(TINY / "qwen" / name)
    # 288 ids hold the ranks and the first special tokens.
    write(tokenizer, tmp_path / "qwen.tiktoken")
    with pytest.raises(ConversionError, match="outside the vocab_size 288"):
        convert(tmp_path, tmp_path / "model.gguf")
    added = {str(280 + i): {"content": text, "special": True} for i, text in enumerate(SPECIAL)}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"added_tokens_decoder": added}))
    convert(tmp_path, tmp_path / "model.gguf")
    ours = load_tokenizer(native.GgufFile(str(tmp_path / "model.gguf")))
    for text in TEXTS:
        assert ours.encode(text) == tokenizer.encode(text).ids
    assert ours.encode("<|im_end|>", parse_special=True) == [282]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"IQ== 0\nIQ== 1\n", "line 2 has rank 1", id="twice"),
        pytest.param(b"IQ== 0\nIg== 2\n", "line 2 has rank 2", id="gap"),
        pytest.param(b"IQ== zero\n", "line 1 is not base64", id="no-number"),
        pytest.param(b"!!! 0\n", "line 1 is not base64", id="no-base64"),
    ],
)
def test_odd_files_are_refused(data: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "odd.tiktoken").write_bytes(data)
    with pytest.raises(ConversionError, match=message):
        read_tiktoken(tmp_path / "odd.tiktoken")
