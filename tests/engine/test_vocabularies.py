"""Vocabularies of every kind against other implementations (tests/golden/make_tokenizers.py)."""

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import tokenizers

from engine._native import GgufFile
from engine.convert_vocab import write_vocab
from engine.errors import UnsupportedModel
from engine.sentencepiece_model import read_sentencepiece
from engine.tokenizer import StreamDecoder, Tokenizer, load_tokenizer
from engine.tokenizer_models import NEVER, byte_alphabet
from tests.engine.gguf_metadata import read_metadata

DATA = Path(__file__).parents[1] / "data" / "tokenizers"
TEXTS: list[str] = json.loads((DATA / "texts.json").read_text("utf-8"))
CUTS = np.load(DATA / "byte_level.npz")
CONTROL, BYTE = 3, 6


def byte_level(pre: str) -> Tokenizer:
    """The golden merges under a pre-tokenizer's name."""
    merges = json.loads((DATA / "byte_level.json").read_text("utf-8"))
    tokens = [*sorted(byte_alphabet()), *(merge.replace(" ", "") for merge in merges), "<s>", "</s>"]
    tokens = list(dict.fromkeys(tokens))
    return load_tokenizer(
        {
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": pre,
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": [1] * (len(tokens) - 2) + [CONTROL, CONTROL],
            "tokenizer.ggml.merges": merges,
            "tokenizer.ggml.bos_token_id": len(tokens) - 2,
            "tokenizer.ggml.eos_token_id": len(tokens) - 1,
        }
    )


@pytest.mark.parametrize(
    ("pre", "group"), [pytest.param(pre, group, id=pre) for group in CUTS.files for pre in group.split()]
)
def test_every_pre_tokenizer_cuts_as_llama_cpp_does(pre: str, group: str) -> None:
    tokenizer = byte_level(pre)
    found = [i for text in TEXTS for i in (*tokenizer.encode(text, add_special=False), -1)]
    assert found == CUTS[group].tolist()


@pytest.mark.parametrize(
    ("pre", "text", "pieces"),
    [
        # Where llama.cpp approximates: what the expressions of the models' own files say, cut by hand.
        pytest.param("gpt-4o", "fooBarBAZ Été", ["foo", "Bar", "BAZ", " Été"], id="gpt-4o-case"),
        pytest.param("gpt-4o", "नमस्ते", ["नमस्ते"], id="gpt-4o-marks"),
        pytest.param("tekken", "DON'T 12", ["DON", "'T", " ", "1", "2"], id="tekken-digits"),
        pytest.param("kimi-k2", "中文abc", ["中文", "abc"], id="kimi-han"),
        pytest.param("tiny_aya", "1234567", ["1", "234", "567"], id="digits-from-the-right"),
        pytest.param("afmoe", "12345 x", ["12", "345", " x"], id="afmoe"),
    ],
)
def test_cuts_of_the_families_own_files(pre: str, text: str, pieces: list[str]) -> None:
    from engine.pre_tokenizers import PRE_TOKENIZERS, build_pre_tokenizer

    letters = byte_alphabet()
    found = build_pre_tokenizer(PRE_TOKENIZERS[pre]).pre_tokenize_str(text)
    assert [bytes(letters[c] for c in piece).decode() for piece, _ in found] == pieces


def sentencepiece(name: str, tmp_path: Path) -> Tokenizer:
    """Convert a golden model as a folder's, and read it back."""
    kind, arch = ("encoder", "bert") if name == "unigram" else ("causal", "llama")
    writer = gguf.GGUFWriter(tmp_path / "vocab.gguf", arch)
    write_vocab(writer, DATA / name, kind=kind, n_vocab=720)  # type: ignore[arg-type]  # one of the two
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return load_tokenizer(GgufFile(str(tmp_path / "vocab.gguf")))


@pytest.mark.parametrize("name", ["unigram", "spm-prefix", "spm-runs"])
def test_sentencepiece_models_cut_as_the_library_does(name: str, tmp_path: Path) -> None:
    tokenizer = sentencepiece(name, tmp_path)
    expected = json.loads((DATA / name / "ids.json").read_text())
    for text, ids in zip(TEXTS, expected, strict=True):
        assert tokenizer.encode(text, add_special=False) == ids, repr(text)


@pytest.mark.parametrize("name", ["spm-prefix", "spm-runs"])
def test_text_comes_back_whole_and_streams_no_broken_characters(name: str, tmp_path: Path) -> None:
    tokenizer = sentencepiece(name, tmp_path)
    for text in TEXTS:
        decoder = StreamDecoder(tokenizer)
        pieces = [decoder.push(i) for i in tokenizer.encode(text, add_special=False)]
        assert "".join(pieces) + decoder.flush() == text
        assert not any("\ufffd" in piece for piece in pieces)


def test_unigram_puts_its_tokens_around_texts_and_pairs(tmp_path: Path) -> None:
    tokenizer = sentencepiece("unigram", tmp_path)
    a, b = (tokenizer.encode(text, add_special=False) for text in ("word", "中"))
    assert tokenizer.encode("word") == [0, *a, 2]
    assert tokenizer.join_pair(a, b) == ([0, *a, 2, 2, *b, 2], len(a) + 3)
    assert tokenizer.encode("</s>", add_special=False) != [2]
    assert tokenizer.encode("</s>", add_special=False, parse_special=True) == [2]


def test_no_text_becomes_a_control_token_of_a_unigram(tmp_path: Path) -> None:
    tokenizer = sentencepiece("unigram", tmp_path)
    ids = tokenizer.encode(f"{NEVER}0 <s> <mask> <pad>", add_special=False)
    assert not {0, 1, 2} & set(ids)


def unigram_file(tmp_path: Path) -> dict[str, Any]:
    sentencepiece("unigram", tmp_path)
    return read_metadata(tmp_path / "vocab.gguf")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(lambda t: t[:3], r"has 3 bytes", id="cut-in-its-length"),
        pytest.param(lambda t: b"\xff\xff\xff\x7f" + t[4:], "are said to be its trie", id="trie-too-long"),
        pytest.param(lambda t: t[:-1], "ends within a replacement", id="replacement-cut"),
        pytest.param(lambda t: t[:-1] + b"\xff\0", "is no UTF-8", id="replacement-odd"),
        pytest.param(lambda t: t[:4] + b"\xff\xff\xff\x7f" + t[8:], "points to unit", id="root-outside"),
    ],
)
def test_hostile_charsmaps_are_refused(spoil: Any, message: str, tmp_path: Path) -> None:
    file = unigram_file(tmp_path)
    key = "tokenizer.ggml.precompiled_charsmap"
    file[key] = list(spoil(bytes(byte & 0xFF for byte in file[key])))
    with pytest.raises(UnsupportedModel, match=message):
        load_tokenizer(file)


def test_mutated_charsmaps_are_refused_or_walked_safely(tmp_path: Path) -> None:
    file = unigram_file(tmp_path)
    key = "tokenizer.ggml.precompiled_charsmap"
    table = np.array([byte & 0xFF for byte in file[key]], np.uint8)
    random = np.random.default_rng(3)
    n_walked = 0
    for _ in range(150):
        spoilt = table.copy()
        places = random.integers(0, len(table), random.integers(1, 30))
        spoilt[places] = random.integers(0, 256, len(places))
        try:
            tokenizer = load_tokenizer(file | {key: spoilt.tolist()})
        except UnsupportedModel:
            continue
        n_walked += 1
        for text in TEXTS:
            assert all(0 <= i < tokenizer.vocab_size for i in tokenizer.encode(text))
    assert 5 < n_walked < 145


def word_file() -> dict[str, object]:
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "h", "e", "he", "中", "文", "中文", ","]
    return {
        "tokenizer.ggml.model": "whitespace",
        "tokenizer.ggml.pre": "whitespace",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL, CONTROL, CONTROL, 2] + [1] * 7,
        "tokenizer.ggml.merges": ["h e", "中 文"],
        "tokenizer.ggml.bos_token_id": 0,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 3,
    }


def test_words_without_spaces() -> None:
    tokenizer = load_tokenizer(word_file())
    assert tokenizer.encode("he 中文, x") == [0, 6, 9, 10, 3, 2]
    lowered = load_tokenizer(word_file() | {"tokenizer.ggml.normalizer.lowercase": True})
    assert lowered.encode("HE") == [0, 6, 2]


def spaced_file() -> dict[str, object]:
    tokens = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"<0x{b:02X}>" for b in range(256))]
    tokens += ["a", "\u2581", "b", "\u2581b", "\n", "\n\n", "\n\n\n"]
    return {
        "tokenizer.ggml.model": "gemma4",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [CONTROL, CONTROL, CONTROL, 2] + [BYTE] * 256 + [1] * 7,
        "tokenizer.ggml.merges": ["\u2581 b"],
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
    }


def test_gemma_4_merges_line_by_line() -> None:
    tokenizer = load_tokenizer(spaced_file())
    ids = tokenizer.encode("a b\n\n\n中")
    assert ids == [2, 260, 263, 266, *(4 + byte for byte in "中".encode())]
    assert tokenizer.decode(ids) == "a b\n\n\n中"


def test_blanks_around_special_tokens_are_swallowed_where_the_file_says() -> None:
    tokens = [*byte_alphabet(), "[L]", "[R]", "</s>"]
    file = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * 256 + [CONTROL] * 3,
        "tokenizer.ggml.merges": ["a b"],
        "tokenizer.ggml.eos_token_id": 258,
        "quarry.tokenizer.strips_left": [256, 9999],
        "quarry.tokenizer.strips_right": [257],
    }
    tokenizer = load_tokenizer(file)
    a, space = tokenizer.encode("a "), tokenizer.encode(" ")
    assert tokenizer.encode("a [L] [R] \na", parse_special=True) == [a[0], 256, *space, 257, a[0]]


def test_phi_3_swallows_the_line_end_after_its_tokens() -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "<|user|>", "\u2581", "h"]
    file = {
        "general.name": "Phi 3 mini",
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.token_type": [2, CONTROL, CONTROL] + [BYTE] * 256 + [CONTROL, 1, 1],
        "tokenizer.ggml.add_space_prefix": False,
    }
    named = load_tokenizer(file | {"general.name": "Phi-3-mini-4k-instruct"})
    assert named.encode("<|user|>\nh", add_special=False, parse_special=True) == [259, 261]
    other = load_tokenizer(file)
    assert len(other.encode("<|user|>\nh", add_special=False, parse_special=True)) == 3


def test_a_fast_tokenizers_file_says_the_same_as_the_model(tmp_path: Path) -> None:
    model = read_sentencepiece(DATA / "unigram" / "sentencepiece.bpe.model")
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(piece.text, piece.score) for piece in model.pieces[3:]]
    fast = tokenizers.Tokenizer(tokenizers.models.Unigram([*pieces, ("<mask>", 0.0)], unk_id=3))
    fast.normalizer = tokenizers.normalizers.Precompiled(model.charsmap)
    fast.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.WhitespaceSplit(), tokenizers.pre_tokenizers.Metaspace()]
    )
    fast.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    fast.save(str(tmp_path / "tokenizer.json"))
    writer = gguf.GGUFWriter(tmp_path / "fast.gguf", "bert")
    write_vocab(writer, tmp_path, kind="encoder", n_vocab=720)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    from_json = load_tokenizer(GgufFile(str(tmp_path / "fast.gguf")))
    from_model = sentencepiece("unigram", tmp_path)
    for text in TEXTS:
        ids = from_json.encode(text)
        assert ids == from_model.encode(text), repr(text)
        assert ids[1:-1] == fast.encode(text, add_special_tokens=False).ids, repr(text)


def test_a_file_without_a_pre_tokenizer_is_cut_in_the_oldest_way_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    named = byte_level("default")
    assert not caplog.records
    unnamed = byte_level("")
    assert "tokenizer.ggml.pre is missing" in caplog.text
    assert [unnamed.encode(text) for text in TEXTS] == [named.encode(text) for text in TEXTS]


def test_words_of_a_folder(tmp_path: Path) -> None:
    vocab = {
        text: i
        for i, text in enumerate(("<s>", "<pad>", "</s>", "<unk>", "h", "e", "he", "中", "文", "中文"))
    }
    words = tokenizers.Tokenizer(
        tokenizers.models.BPE(vocab=vocab, merges=[("h", "e"), ("中", "文")], unk_token="<unk>")
    )
    words.normalizer = tokenizers.normalizers.Lowercase()
    words.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    words.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    words.save(str(tmp_path / "tokenizer.json"))
    writer = gguf.GGUFWriter(tmp_path / "words.gguf", "jina-bert-v2")
    write_vocab(writer, tmp_path, kind="encoder", n_vocab=12)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    tokenizer = load_tokenizer(GgufFile(str(tmp_path / "words.gguf")))
    assert tokenizer.encode("HE 中文x") == [0, *words.encode("HE 中文x").ids, 2]
