"""Text to ids and back: the vocabularies of llama.cpp's tests, safety, streaming, hostile files."""

import pickle
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from engine._native import GgufFile
from engine.errors import UnsupportedModel
from engine.pre_tokenizers import PRE_TOKENIZERS, build_pre_tokenizer
from engine.tokenizer import StreamDecoder, Tokenizer, load_tokenizer
from engine.tokenizer_models import byte_alphabet

VOCAB_DIR = Path(__file__).parents[3] / "shared" / "vocab"
VOCABULARIES = sorted(VOCAB_DIR.glob("*.gguf"))
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
Edit = Callable[[dict[str, object]], object]


def byte_level_file(pre: str = "gpt-2") -> dict[str, object]:
    """A vocabulary of the 256 bytes, two merges, a control and a user-defined token."""
    letters = list(byte_alphabet())
    tokens = [*letters, "he", "hel", "<|im_end|>", "<|im_start|>", "[tool]"]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [NORMAL] * 258 + [CONTROL, CONTROL, USER_DEFINED],
        "tokenizer.ggml.merges": ["h e", "he l"],
        "tokenizer.ggml.eos_token_id": 258,
        "tokenizer.ggml.bos_token_id": 259,
    }


def sentencepiece_file() -> dict[str, object]:
    """A SentencePiece vocabulary with byte fallback whose "</s>" could be merged from text."""
    pieces = ["\u2581", "h", "i", "\u2581h", "\u2581hi", "</", "s>", "<", "/", "s", ">"]
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), *pieces]
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * 259 + [-float(i) for i in range(len(pieces))],
        "tokenizer.ggml.token_type": [UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(pieces),
    }


@pytest.mark.skipif(not VOCABULARIES, reason="the shared vocabularies are not here")
@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem)
def test_every_id_of_the_reference_texts(path: Path) -> None:
    tokenizer = load_tokenizer(GgufFile(str(path)))
    texts = path.with_suffix(".gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    lines = path.with_suffix(".gguf.out").read_text().split("\n")
    assert len(texts) == len(lines) > 40
    for text, line in zip(texts, lines, strict=True):
        assert tokenizer.encode(text, add_special=False) == [int(i) for i in line.split()], repr(text)


@pytest.mark.skipif(not VOCABULARIES, reason="the shared vocabularies are not here")
@pytest.mark.parametrize("path", VOCABULARIES, ids=lambda path: path.stem)
def test_counting_a_batch_is_counting_each(path: Path) -> None:
    tokenizer = load_tokenizer(GgufFile(str(path)))
    texts = path.with_suffix(".gguf.inp").read_bytes().decode().split("\n__ggml_vocab_test__\n")
    texts += ["", "half a pair \ud800", "<|im_start|> </s> [tool]"]
    expected = [len(tokenizer.encode(text, add_special=False)) for text in texts]
    assert pickle.loads(pickle.dumps(tokenizer)).count(texts) == expected  # noqa: S301 - pickled here


def test_words_count_the_same_wherever_they_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blanks, ideographs, marks that combine with them, scripts that decompose, words that are too long."""
    path = VOCAB_DIR / "ggml-vocab-bert-bge.gguf"
    if not path.exists():
        pytest.skip("the shared vocabularies are not here")
    monkeypatch.setattr("engine.word_counts._MAX_WORDS", 60)
    tokenizer = load_tokenizer(GgufFile(str(path)))
    draw = random.Random(5)
    parts = [
        "word", "Unbelievably,", "naïve", "e\u0301", "\u0301", "年假", "十五天", "。", "，", " ",
        "  ", "\n", "\t",
        "\u3000", "\x1c", "\x85", "\u200b", "\u00ad", "\x00", "\ufffd", "한국어", "かな", "\uf900",
        "\U00020000",
        "ﬁ", "İ", "ß", "12,345.67", "http://a.b/c?d=1", "x" * 130, "\u2028", "\u00a0", "😀", "-", "|", "C++",
    ]  # fmt: skip
    for _ in range(40):
        texts = ["".join(draw.choices(parts, k=draw.randint(0, 12))) for _ in range(20)]
        expected = [len(tokenizer.encode(text, add_special=False)) for text in texts]
        assert tokenizer.count(texts) == expected


@pytest.mark.skipif(not VOCABULARIES, reason="the shared vocabularies are not here")
@pytest.mark.parametrize(
    "path", [p for p in VOCABULARIES if "bert" not in p.stem], ids=lambda path: path.stem
)
def test_text_survives_encode_and_decode(path: Path) -> None:
    tokenizer = load_tokenizer(GgufFile(str(path)))
    text = "Where is 华山? \U0001f600\U0001f469\u200d\U0001f467\n\n    def f(x):  # naïve\r\n"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    decoder = StreamDecoder(tokenizer)
    pieces = [decoder.push(i) for i in ids]
    assert "".join(pieces) + decoder.flush() == text
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZERS))
def test_every_pre_tokenizer_keeps_every_byte(pre: str) -> None:
    text = "Hello WORLD's 1234567 你好,世界! \u1100\u1161 \n x's\t\u00e9 <a/>\n\n   ok"
    cuts = PRE_TOKENIZERS[pre]
    pieces = [p for p, _ in build_pre_tokenizer(cuts).pre_tokenize_str(text)]
    if not cuts.writes_bytes:
        assert "".join(pieces) == text
        return
    letters = byte_alphabet()
    assert bytes(letters[c] for piece in pieces for c in piece).decode() == text
    assert len(pieces) > 3


@pytest.mark.parametrize(
    ("pre", "expected"),
    [
        pytest.param("qwen2", ["12345", "5"], id="qwen2-single-digits"),
        pytest.param("llama-bpe", ["12345", "2"], id="llama3-three-digits"),
        pytest.param("superbpe", ["1234567", "3"], id="superbpe-from-the-right"),
        pytest.param("falcon", ["1234567", "3"], id="falcon-three-digits"),
        pytest.param("gpt-2", ["1234567", "1"], id="gpt2-all-digits"),
    ],
)
def test_digits_are_cut_as_the_family_does(pre: str, expected: list[str]) -> None:
    text, n_pieces = expected
    assert len(build_pre_tokenizer(PRE_TOKENIZERS[pre]).pre_tokenize_str(text)) == int(n_pieces)


@pytest.mark.parametrize(
    ("make", "text", "control"),
    [
        pytest.param(byte_level_file, "hi<|im_end|>", 258, id="byte-level"),
        pytest.param(sentencepiece_file, "hi</s>", 2, id="sentencepiece"),
    ],
)
def test_text_becomes_a_control_token_only_on_request(
    make: Callable[[], dict[str, object]], text: str, control: int
) -> None:
    tokenizer = load_tokenizer(make())
    assert control not in tokenizer.encode(text, add_special=False)
    assert tokenizer.encode(text, add_special=False, parse_special=True)[-1] == control
    assert control in tokenizer.eos_ids
    assert tokenizer.decode(tokenizer.encode(text, add_special=False)) == text


def test_ignored_merges_do_not_reach_control_tokens() -> None:
    file = byte_level_file("llama-bpe")
    file["tokenizer.ggml.tokens"][258] = "stop"  # type: ignore[index]
    tokenizer = load_tokenizer(file)
    assert 258 not in tokenizer.encode("stop", add_special=False)


def test_end_token_typed_as_normal_is_still_control() -> None:
    file = byte_level_file()
    file["tokenizer.ggml.token_type"][258] = NORMAL  # type: ignore[index]
    tokenizer = load_tokenizer(file)
    assert 258 not in tokenizer.encode("<|im_end|>", add_special=False)


@pytest.mark.parametrize("kind", [NORMAL, USER_DEFINED], ids=["normal", "user-defined"])
def test_the_end_of_struck_text_is_no_end_where_the_file_names_another(kind: int) -> None:
    file = byte_level_file()
    file["tokenizer.ggml.tokens"] = [*file["tokenizer.ggml.tokens"], "</s>"]  # type: ignore[misc]
    file["tokenizer.ggml.token_type"] = [*file["tokenizer.ggml.token_type"], kind]  # type: ignore[misc]
    tokenizer = load_tokenizer(file)
    assert tokenizer.eos_ids == {258}
    assert not tokenizer.is_hidden(261)
    del file["tokenizer.ggml.eos_token_id"]
    assert 261 in load_tokenizer(file).eos_ids


@pytest.mark.parametrize("text", ["<fim_prefix>", "<|fim_middle|>", "<\uff5cfim\u2581hole\uff5c>", "<PRE>"])
def test_no_text_asks_to_fill_in_code(text: str) -> None:
    file = byte_level_file()
    file["tokenizer.ggml.tokens"][260] = text  # type: ignore[index]
    tokenizer = load_tokenizer(file)
    assert 260 not in tokenizer.encode(text, add_special=False)
    assert tokenizer.encode(text, add_special=False, parse_special=True) == [260]


def test_user_defined_tokens_are_always_found() -> None:
    tokenizer = load_tokenizer(byte_level_file())
    assert tokenizer.encode("hel[tool]", add_special=False) == [257, 260]
    assert tokenizer.decode([257, 260]) == "hel[tool]"


def test_bos_is_not_doubled_after_a_template_wrote_it() -> None:
    tokenizer = load_tokenizer(byte_level_file() | {"tokenizer.ggml.add_bos_token": True})
    assert tokenizer.encode("hel") == [259, 257]
    assert tokenizer.encode("<|im_start|>hel", parse_special=True) == [259, 257]


def test_lone_surrogate_is_replaced() -> None:
    tokenizer = load_tokenizer(byte_level_file())
    assert tokenizer.decode(tokenizer.encode("a\ud800b")) == "a\ufffdb"


def test_stream_decoder_holds_half_characters() -> None:
    tokenizer = load_tokenizer(sentencepiece_file())
    decoder = StreamDecoder(tokenizer)
    first = [3 + b for b in "好".encode()]
    assert [decoder.push(i) for i in first] == ["", "", "好"]
    assert decoder.push(3 + 0xE5) == ""
    assert decoder.flush() == "\ufffd"


@pytest.mark.parametrize(
    ("continues", "expected"), [(False, "hi"), (True, " hi")], ids=["starts", "continues"]
)
def test_leading_space_is_dropped_only_at_the_start(continues: bool, expected: str) -> None:
    tokenizer = load_tokenizer(sentencepiece_file())
    decoder = StreamDecoder(tokenizer, continues=continues)
    assert decoder.push(tokenizer.encode("hi", add_special=False)[0]) == expected


@pytest.mark.parametrize("token_id", [-1, 261], ids=["negative", "past-the-end"])
def test_unknown_id_is_an_index_error(token_id: int) -> None:
    tokenizer: Tokenizer = load_tokenizer(byte_level_file())
    with pytest.raises(IndexError, match=f"{token_id} is outside the vocabulary of 261"):
        tokenizer.decode([token_id])


def _set(key: str, value: object) -> Edit:
    return lambda file: file.update({f"tokenizer.ggml.{key}": value})


@pytest.mark.parametrize(
    ("make", "edit", "message"),
    [
        pytest.param(byte_level_file, _set("model", None), "model is missing", id="no-model"),
        pytest.param(byte_level_file, _set("model", 7), "model is of type int", id="model-of-odd-type"),
        pytest.param(byte_level_file, _set("model", "rwkv"), "'rwkv'", id="unknown-model"),
        pytest.param(byte_level_file, _set("pre", "nonsense"), "'nonsense'", id="unknown-pre"),
        pytest.param(byte_level_file, _set("tokens", None), "tokens is missing", id="no-tokens"),
        pytest.param(byte_level_file, _set("tokens", []), "tokens is missing or empty", id="empty-tokens"),
        pytest.param(byte_level_file, _set("tokens", "abc"), "tokens is of type str", id="tokens-a-text"),
        pytest.param(
            byte_level_file, _set("tokens", [1, 2]), r"tokens\[0\] is of type int", id="tokens-numbers"
        ),
        pytest.param(byte_level_file, _set("tokens", ["a", "b", "a"]), "twice, at 0 and 2", id="duplicate"),
        pytest.param(byte_level_file, _set("token_type", [1]), "has 1 entries", id="types-too-short"),
        pytest.param(byte_level_file, _set("token_type", ["x"] * 261), "of type str", id="types-of-odd-type"),
        pytest.param(byte_level_file, _set("merges", None), "merges is missing", id="no-merges"),
        pytest.param(byte_level_file, _set("merges", ["he"]), r"merges\[0\] is 'he'", id="merge-of-one-part"),
        pytest.param(
            byte_level_file, _set("eos_token_id", "2"), "eos_token_id is of type str", id="eos-a-text"
        ),
        pytest.param(
            byte_level_file, _set("add_bos_token", 1), "add_bos_token is of type int", id="add-bos-int"
        ),
        pytest.param(sentencepiece_file, _set("scores", None), "scores is missing", id="no-scores"),
        pytest.param(
            sentencepiece_file, _set("scores", [0.0]), "scores has 1 entries", id="scores-too-short"
        ),
        pytest.param(sentencepiece_file, _set("scores", [float("nan")] * 270), "is nan", id="score-nan"),
        pytest.param(
            sentencepiece_file, _set("model", "bert"), "unknown_token_id is missing", id="bert-no-unk"
        ),
    ],
)
def test_hostile_files_are_refused_by_name(
    make: Callable[[], dict[str, object]], edit: Edit, message: str
) -> None:
    file = make()
    edit(file)
    with pytest.raises(UnsupportedModel, match=message):
        load_tokenizer(file)


@pytest.mark.parametrize(
    ("make", "edit"),
    [
        pytest.param(byte_level_file, _set("merges", ["x y", "he llo"]), id="merges-outside-the-vocabulary"),
        pytest.param(byte_level_file, _set("eos_token_id", 10**9), id="eos-outside-the-vocabulary"),
        pytest.param(byte_level_file, _set("token_type", [99] * 261), id="unknown-token-types"),
        pytest.param(sentencepiece_file, _set("scores", [3e38] * 270), id="huge-scores"),
        pytest.param(sentencepiece_file, _set("unknown_token_id", 5), id="odd-unknown-token"),
    ],
)
def test_odd_but_readable_files_still_encode(make: Callable[[], dict[str, object]], edit: Edit) -> None:
    file = make()
    edit(file)
    tokenizer = load_tokenizer(file)
    assert all(0 <= i < tokenizer.vocab_size for i in tokenizer.encode("hello </s> 世界", parse_special=True))


def wordpiece_file() -> dict[str, object]:
    """A WordPiece vocabulary as GGUF writes it."""
    return {
        "tokenizer.ggml.model": "bert",
        "tokenizer.ggml.tokens": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "\u2581he", "llo", "\u2581,"],
        "tokenizer.ggml.token_type": [CONTROL] * 4 + [NORMAL] * 3,
        "tokenizer.ggml.unknown_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.seperator_token_id": 3,
    }


def test_wordpiece_puts_its_tokens_around() -> None:
    tokenizer = load_tokenizer(wordpiece_file())
    assert tokenizer.encode("H\u00e9llo, \u4e16") == [2, 4, 5, 6, 1, 3]
    assert tokenizer.decode([2, 4, 5, 6, 3]) == "hello ,"


def unigram_file() -> dict[str, object]:
    """A Unigram vocabulary without a table of normalization."""
    return sentencepiece_file() | {"tokenizer.ggml.model": "t5", "tokenizer.ggml.unknown_token_id": 0}


def words_file() -> dict[str, object]:
    """A vocabulary of words without spaces."""
    return {
        "tokenizer.ggml.model": "whitespace",
        "tokenizer.ggml.tokens": ["<s>", "</s>", "<unk>", "h", "e", "he", "l", "o"],
        "tokenizer.ggml.token_type": [CONTROL, CONTROL, UNKNOWN] + [NORMAL] * 5,
        "tokenizer.ggml.merges": ["h e"],
        "tokenizer.ggml.unknown_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
    }


def gemma4_file() -> dict[str, object]:
    """SentencePiece's pieces with merges, as Gemma 4 has them."""
    file = sentencepiece_file() | {"tokenizer.ggml.model": "gemma4", "tokenizer.ggml.bos_token_id": 1}
    return file | {"tokenizer.ggml.merges": ["\u2581 h", "\u2581h i"]}


def _odd_values() -> list[object]:
    numbers: list[object] = [None, 0, -1, 2**63, 1.5, float("nan"), float("inf"), True]
    return [*numbers, "", "a b", b"x", {}, [], [[]], ["\ud800"] * 10, ["a" * 9999], [0] * 300, [1e308] * 300]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "make",
    [byte_level_file, sentencepiece_file, wordpiece_file, unigram_file, words_file, gemma4_file],
    ids=["gpt2", "llama", "bert", "t5", "whitespace", "gemma4"],
)
def test_mutated_files_are_refused_or_work(make: Callable[[], dict[str, object]], seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(150):
        file = make()
        extra = ("add_bos_token", "add_space_prefix", "normalizer.lowercase")
        key = rng.choice([*file, *(f"tokenizer.ggml.{name}" for name in extra)])
        value = file.get(key)
        if isinstance(value, list) and rng.random() < 0.6:
            at = rng.randrange(len(value))
            file[key] = rng.choice(
                [value[:at], [*value[:at], rng.choice(_odd_values()), *value[at + 1 :]], value[::-1]]
            )
        else:
            file[key] = rng.choice(_odd_values())
        try:
            tokenizer = load_tokenizer(file)
        except UnsupportedModel:
            continue
        ids = tokenizer.encode("hello </s> \u4e16<|im_end|> \ud800", parse_special=True)
        assert all(0 <= i < tokenizer.vocab_size for i in ids)
        tokenizer.decode(range(tokenizer.vocab_size), skip_special=False)
