"""Words of documents and questions."""

import pytest

from ingest.words import query_words, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("ＡＢＣ１２３ Straße！", ["abc123", "strasse"], id="width and case"),
        pytest.param("年假", ["年", "假", "年假"], id="characters and pairs"),
        pytest.param("的年", ["年", "的年"], id="function characters stand in pairs only"),
        pytest.param("E-4711", ["e-4711", "e", "4711"], id="identifier and its parts"),
        pytest.param("第五条", ["第", "五", "条", "第五", "五条", "第5条", "5"], id="article"),
        pytest.param("x" * 2000, [], id="no word"),
        pytest.param("\ud800！", [], id="half a surrogate pair"),
    ],
)  # fmt: skip
def test_words(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@pytest.mark.parametrize(
    ("numeral", "value"),
    [
        ("十五", "15"), ("二十", "20"), ("一百零三", "103"), ("三万五千", "35000"),
        ("一亿二千万", "120000000"), ("二〇二四", "2024"), ("两百", "200"), ("一万亿", "1000000000000"),
    ],
)  # fmt: skip
def test_chinese_numerals_are_read(numeral: str, value: str) -> None:
    assert value in words(f"共{numeral}元")


def test_numeral_of_any_length_is_cut_in_linear_pieces() -> None:
    assert len(words("九" * 20_000)) < 50_000


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        pytest.param("How do I rename a file?", ["rename", "file"], id="english"),
        pytest.param("怎么改名？", ["改", "名", "改名"], id="chinese"),
        pytest.param("what is it", ["what", "is", "it"], id="stop words only"),
        pytest.param("改名改名", ["改", "名", "改名", "名改"], id="no repeats"),
    ],
)
def test_question_keeps_what_it_is_about(question: str, expected: list[str]) -> None:
    assert query_words(question) == expected
