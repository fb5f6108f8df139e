"""Chinese documents: articles, spaced-out lines, fonts without characters, traditional characters."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from ingest.chunker import chunk
from ingest.errors import PartitionError
from ingest.lexical_index import LexicalIndex
from ingest.partition import formats
from ingest.partition.articles import with_articles
from ingest.partition.limits import Limits
from ingest.partition.page_log import PageLog
from ingest.partition.pdf import _closed_up, _is_garbled, read_pdf
from ingest.values import Element
from ingest.words import words
from tests.ingest.hashing_embedder import HashingEmbedder
from tests.ingest.test_partition import pdf

if TYPE_CHECKING:
    from pathlib import Path

LAW = [
    Element("Title", "劳动合同法", level=0),
    Element("Title", "第四章　解除", level=0),
    Element(
        "NarrativeText",
        "第三十六条　用人单位与劳动者协商一致，可以解除劳动合同。\n"
        "第三十七条 劳动者提前三十日通知，可以解除劳动合同。",
    ),
    Element("NarrativeText", "劳动者在试用期内提前三日通知，可以解除劳动合同。"),
    Element("Title", "第五章　附则", level=0),
    Element("Title", "第三十八条之一 本法自公布之日起施行", level=0),
]


def test_articles_are_headings_of_their_text() -> None:
    shown = [e.text if e.level is None else f"{e.text}|{e.level}" for e in with_articles(LAW)]
    assert shown == [
        "劳动合同法|0", "第四章　解除|1", "第三十六条|90", "用人单位与劳动者协商一致，可以解除劳动合同。",
        "第三十七条|90", "劳动者提前三十日通知，可以解除劳动合同。",
        "劳动者在试用期内提前三日通知，可以解除劳动合同。",
        "第五章　附则|1", "第三十八条之一|90", "本法自公布之日起施行",
    ]  # fmt: skip


def test_every_chunk_names_the_article_it_is_of() -> None:
    count = HashingEmbedder().token_counter
    long = Element("NarrativeText", "第七条 " + "员工应当按时提交报告。" * 30 + "最后一款另有规定。")
    drafts = chunk(with_articles([*LAW, long]), count_tokens=count, budget=80)
    (whole,) = [draft for draft in drafts if "三日通知" in draft.text]
    assert "第三十七条" in whole.embedding_text
    assert whole.heading_path[:2] == ("劳动合同法", "第四章 解除")
    cut = [draft for draft in drafts if "提交报告" in draft.text]
    assert len(cut) > 3
    assert {draft.heading_path[-1] for draft in cut} == {"第七条"}


@pytest.mark.parametrize(
    "text",
    ["根据第三十六条的规定，合同解除。", "第三方不承担责任。", "第一条件是付款。"],
    ids=["mention", "third-party", "other-word"],
)
def test_mention_is_no_article(text: str) -> None:
    assert with_articles([Element("NarrativeText", text)]) == [Element("NarrativeText", text)]


def test_lines_of_chinese_paragraphs_are_joined_without_a_space() -> None:
    text = "员工每年享有\n十五天年假，\nand some more\nwords."
    for suffix in (".md", ".rst"):
        (element,) = formats.read(io.BytesIO(text.encode()), suffix, Limits())
        assert element.text == "员工每年享有十五天年假， and some more words."


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        pytest.param("员 工 享 有 年 假 。", "员工享有年假。", id="spaced-out"),
        pytest.param("第一章 总则", "第一章 总则", id="meant"),
        pytest.param("员 工 享 有 15 days", "员工享有 15 days", id="mixed"),
        pytest.param("plain words stay", "plain words stay", id="english"),
    ],
)
def test_spaces_between_characters_are_closed_up(line: str, expected: str) -> None:
    assert _closed_up(line) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("\ue001\ue002\ue003 \ue004", True, id="private-use"),
        pytest.param("\x01\x03\x04\x05 \x10\x11", True, id="glyph-codes"),
        pytest.param("年假十五天。 Fifteen days.\r\n", False, id="text"),
        pytest.param("a hyphen\ufffe\r\nated word \ue0b7 one", False, id="few"),
        pytest.param("", False, id="empty"),
    ],
)
def test_garbled_text_layer_is_told(text: str, expected: bool) -> None:
    assert _is_garbled(text) is expected


def test_pdf_whose_fonts_draw_unknown_characters_is_refused_with_the_reason(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With OCR such a page would be looked at instead.
    monkeypatch.setattr("ingest.partition.ocr._NEEDED", ("no_such_package",))
    glyphs = "\\001\\003\\004\\005\\006\\016\\017"
    readable = [(11, "Trains are preferred to planes.")]
    with pytest.raises(PartitionError, match="not readable on 1 of 1 pages"):
        read_pdf(io.BytesIO(pdf([(11, glyphs)])), Limits(), PageLog.forgetful())
    elements = read_pdf(io.BytesIO(pdf(readable, readable, [(11, glyphs)])), Limits(), PageLog.forgetful())
    assert [(e.text, e.page) for e in elements][1:] == [
        ("Trains are preferred to planes.", 2),
        ("[The text of page 3 is not readable.]", 3),
    ]


def test_traditional_and_simplified_find_each_other(tmp_path: Path) -> None:
    assert words("勞動合同與軟體") == words("劳动合同与软体")
    index = LexicalIndex.open(tmp_path)
    index.add([(1, 1, "員工請假規定"), (2, 1, "员工报销规定")])
    index.commit()
    for query in ("请假", "請假"):
        assert [hit.chunk_id for hit in index.search(query, limit=5, collection_ids=None)] == [1]
    assert {hit.chunk_id for hit in index.search("員工", limit=5, collection_ids=None)} == {1, 2}
    index.close()


TRADITIONAL = "員工每年享有十五天帶薪年假，其中至少五天應當連續使用，未使用的部分可以順延到下一年。"
SIMPLIFIED = "员工每年享有十五天带薪年假，其中至少五天应当连续使用，未使用的部分可以顺延到下一年。"


@pytest.mark.parametrize(
    ("suffix", "template"),
    [
        (".txt", "{}"), (".md", "# 制度\n\n{}"), (".rst", "{}"), (".csv", "甲,乙\n{},一\n"),
        (".tsv", "甲\t乙\n{}\t一\n"),
        (".json", '{{"甲": "{}"}}'), (".jsonl", '{{"甲": "{}"}}\n'), (".html", "<p>{}</p>"),
        (".py", "# {}\n"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "gb18030", "gbk", "big5"])
def test_every_text_format_is_read_in_every_encoding(suffix: str, template: str, encoding: str) -> None:
    said = TRADITIONAL if encoding == "big5" else SIMPLIFIED
    content = template.format(said).encode(encoding)
    text = "".join(element.text for element in formats.read(io.BytesIO(content), suffix, Limits()))
    assert said in text
    assert "\ufffd" not in text


@pytest.mark.parametrize("encoding", ["gb18030", "gbk", "big5", "utf-16"])
def test_xml_and_pages_keep_to_the_encoding_that_they_declare(encoding: str) -> None:
    said = TRADITIONAL if encoding == "big5" else SIMPLIFIED
    for suffix, template in (
        (".xml", f"<?xml version='1.0' encoding='{encoding}'?><a><b>{said}</b></a>"),
        (".html", f"<html><head><meta charset='{encoding}'></head><p>{said}</p>"),
    ):
        content = template.encode(encoding)
        assert said in "".join(e.text for e in formats.read(io.BytesIO(content), suffix, Limits()))
