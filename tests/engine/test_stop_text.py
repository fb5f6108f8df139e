"""Text of a growing completion: characters come whole, stop strings never show."""

from pathlib import Path

import pytest

from engine import _native as native
from engine.stop_text import StopText
from engine.tokenizer import StreamDecoder, Tokenizer, load_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tiny_models: Path) -> Tokenizer:
    """A vocabulary that has a token for every byte."""
    return load_tokenizer(native.GgufFile(str(tiny_models / "llama-tied.gguf")))


@pytest.fixture(scope="module")
def ids(tokenizer: Tokenizer) -> dict[bytes, int]:
    """Token of each byte."""
    found = {tokenizer.token_bytes(i): i for i in range(tokenizer.vocab_size)}
    return {bytes([b]): found[bytes([b])] for b in range(256)}


def pieces(text: StopText, ids: dict[bytes, int], data: bytes) -> list[str]:
    """What each byte of `data` lets out, up to the stop."""
    out = []
    for byte in data:
        out.append(text.push(ids[bytes([byte])]))
        if text.stopped:
            break
    return out


def test_characters_come_whole(tokenizer: Tokenizer, ids: dict[bytes, int]) -> None:
    text = StopText(StreamDecoder(tokenizer), ())
    assert pieces(text, ids, "a你🙂".encode()) == ["a", "", "", "你", "", "", "", "🙂"]


@pytest.mark.parametrize(
    ("is_cut", "tail"), [(True, ""), (False, "\ufffd")], ids=["cut off by us", "ended by the model"]
)
def test_half_a_character_at_the_end(
    tokenizer: Tokenizer, ids: dict[bytes, int], is_cut: bool, tail: str
) -> None:
    text = StopText(StreamDecoder(tokenizer), ())
    assert "".join(pieces(text, ids, "好".encode() + "你".encode()[:2])) == "好"
    assert text.finish(is_cut=is_cut) == tail


def test_bytes_that_are_no_character_show_when_cut(tokenizer: Tokenizer, ids: dict[bytes, int]) -> None:
    text = StopText(StreamDecoder(tokenizer), ())
    assert "".join(pieces(text, ids, b"a\xffb")) == "a\ufffdb"
    assert text.finish(is_cut=True) == ""


@pytest.mark.parametrize(
    ("stops", "data", "shown"),
    [
        (("END",), "one END two", "one "),
        (("END",), "one EN two", "one EN two"),
        (("aab",), "aaab", "a"),
        (("xyz", "y"), "wxyz", "wx"),
        (("。",), "你好。再见", "你好"),
        (("ab",), "ab", ""),
        (("x", "lo"), "hello", "hel"),
    ],
    ids=[
        "in the middle",
        "begun only",
        "overlapping itself",
        "the first to end",
        "several bytes",
        "all",
        "second",
    ],
)
def test_text_ends_before_the_stop(
    tokenizer: Tokenizer, ids: dict[bytes, int], stops: tuple[str, ...], data: str, shown: str
) -> None:
    text = StopText(StreamDecoder(tokenizer), stops)
    out = "".join(pieces(text, ids, data.encode()))
    assert out + text.finish(is_cut=False) == shown
    assert text.stopped == (shown != data)


def test_nothing_of_a_stop_shows_before_it_is_whole(tokenizer: Tokenizer, ids: dict[bytes, int]) -> None:
    text = StopText(StreamDecoder(tokenizer), ("STOP",))
    assert pieces(text, ids, b"go STO") == ["g", "o", " ", "", "", ""]
    assert pieces(text, ids, b"LE") == ["STOL", "E"]


def test_what_was_held_comes_at_the_end(tokenizer: Tokenizer, ids: dict[bytes, int]) -> None:
    text = StopText(StreamDecoder(tokenizer), ("STOP",))
    pieces(text, ids, b"ST")
    assert text.finish(is_cut=True) == "ST"
