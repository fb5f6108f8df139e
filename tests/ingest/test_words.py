"""Words of documents and questions."""

import pytest

from ingest.words import query_parts, query_words, synonyms, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("ＡＢＣ１２３ Straße！", ["abc123", "strasse"], id="width and case"),
        pytest.param("年假", ["年", "假", "年假"], id="characters and pairs"),
        pytest.param("的年", ["年", "的年"], id="function characters stand in pairs only"),
        pytest.param("E-4711", ["e-4711", "e", "4711", "e4711"], id="identifier and its parts"),
        pytest.param("D-017", ["d-017", "d", "017", "17", "d017"], id="number with leading zeros"),
        pytest.param("§ 3, Art. 12", ["3", "art", "12", "§3", "§12"], id="places in a text"),
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


def test_question_has_what_its_words_are_also_called() -> None:
    (leave,) = [part for part in query_parts("怎么辞职？") if "辞职" in part.words]
    assert ("离", "职", "离职") in leave.instead


def test_name_in_a_question_is_sought_closed_up_and_in_parts() -> None:
    (name,) = query_parts("KX-300")
    assert (name.words, name.instead) == (("kx-300",), (("kx300",), ("kx", "300")))


def test_what_a_question_only_asks_for_is_no_word_of_it() -> None:
    (price,) = [part for part in query_parts("多少钱？") if part.instead]
    assert ("价", "格", "价格") in price.instead
    assert "多少" not in query_words("遥控器多少钱？")


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_word_is_called_itself(language: str) -> None:
    assert all(name not in others for name, others in synonyms(language).items())
