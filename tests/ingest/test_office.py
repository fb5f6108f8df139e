"""docx, xlsx, pptx and html by readers of our own: nothing that unstructured reads is lost."""

from __future__ import annotations

import datetime
import io
import re
import zipfile
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from bench.corpus import write_corpus
from ingest.partition import formats
from ingest.partition.limits import Limits
from ingest.partition.numbering import chinese, written
from ingest.partition.unstructured_api import categories
from tests.ingest.test_partition import PARAGRAPH, WORD, archive, docx, saved

if TYPE_CHECKING:
    from pathlib import Path

    from ingest.values import Element


def read(content: bytes, suffix: str) -> list[Element]:
    return formats.read(io.BytesIO(content), suffix, Limits())


def shown(elements: list[Element]) -> list[str]:
    return [e.text if e.level is None else f"{e.text}|{e.level}" for e in elements]


def word(body: str, **parts: str) -> bytes:
    """Make a Word document of a body and other parts, each linked by its name."""
    source = zipfile.ZipFile(io.BytesIO(docx()))
    kept = {name: source.read(name) for name in source.namelist()}
    links = kept["word/_rels/document.xml.rels"].decode()
    for name, content in parts.items():
        kept[f"word/{name}.xml"] = f'<w:{name} xmlns:w="{WORD}">{content}</w:{name}>'.encode()
        kind = f"http://schemas.openxmlformats.org/officeDocument/2006/relationships/{name}"
        links = re.sub(rf'<Relationship [^>]*Target="{name}.xml"[^>]*/>', "", links)
        link = f'<Relationship Id="x{name}" Type="{kind}" Target="{name}.xml"/>'
        links = links.replace("</Relationships>", f"{link}</Relationships>")
    kept["word/_rels/document.xml.rels"] = links.encode()
    names = (
        f'xmlns:w="{WORD}" xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006"'
        ' xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math"'
    )
    kept["word/document.xml"] = f"<w:document {names}><w:body>{body}</w:body></w:document>".encode()
    return archive(kept)


def p(text: str, properties: str = "", run: str = "") -> str:
    own = f"<w:pPr>{properties}</w:pPr>" if properties else ""
    runs = text if text.startswith("<") else f"<w:r><w:rPr>{run}</w:rPr><w:t>{text}</w:t></w:r>"
    return f"<w:p>{own}{runs}</w:p>"


def level(depth: int, form: str, text: str) -> str:
    legal = "<w:isLgl/>" if depth else ""
    return (
        f'<w:lvl w:ilvl="{depth}"><w:start w:val="1"/><w:numFmt w:val="{form}"/>{legal}'
        f'<w:lvlText w:val="{text}"/></w:lvl>'
    )


NUMBERING = (
    f'<w:abstractNum w:abstractNumId="0">{level(0, "chineseCounting", "第%1条")}'
    f"{level(1, 'decimal', '%1.%2')}</w:abstractNum>"
    f'<w:abstractNum w:abstractNumId="1">{level(0, "bullet", "•")}</w:abstractNum>'
    '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num>'
    '<w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num>'
)


def numbered(number: int, depth: int) -> str:
    return f'<w:numPr><w:ilvl w:val="{depth}"/><w:numId w:val="{number}"/></w:numPr>'


def cell(content: str, properties: str = "") -> str:
    return f"<w:tc><w:tcPr>{properties}</w:tcPr>{content}</w:tc>"


def row(*cells: str) -> str:
    return f"<w:tr>{''.join(cells)}</w:tr>"


BOX = f"<w:txbxContent>{p('In a box, twice.')}</w:txbxContent>"


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        pytest.param(
            p("付款", numbered(1, 0)) + p("按月支付。", numbered(1, 1)) + p("违约", numbered(1, 0))
            + p("One", numbered(2, 0)),
            ["第一条|90", "付款", "1.1 按月支付。", "第二条|90", "违约", "One"], id="numbers",
        ),
        pytest.param(
            p('<w:r><w:t xml:space="preserve">Kept </w:t></w:r>'
              "<w:del><w:r><w:delText>gone</w:delText></w:r></w:del>"
              "<w:ins><w:r><w:t>added</w:t></w:r></w:ins><w:moveFrom><w:r><w:t>left</w:t></w:r></w:moveFrom>"
              "<w:r><w:t>, here is a sentence.</w:t></w:r>"),
            ["Kept added, here is a sentence."], id="tracked-changes",
        ),
        pytest.param(
            p('<w:r><w:t>A claim, as said.</w:t></w:r><w:r><w:footnoteReference w:id="2"/></w:r>'),
            ["A claim, as said.", "The source."], id="footnote",
        ),
        pytest.param(
            p('<w:r><w:fldChar w:fldCharType="begin"/><w:instrText> DATE </w:instrText>'
              '<w:fldChar w:fldCharType="separate"/></w:r><w:r><w:t>3 May 2024, a Friday.</w:t></w:r>'),
            ["3 May 2024, a Friday."], id="field",
        ),
        pytest.param(
            p("Not for print.", run="<w:vanish/>") + p("Seen by all."), ["Seen by all."], id="hidden-text"
        ),
        pytest.param(
            p(f"<w:r><mc:AlternateContent><mc:Choice><w:drawing>{BOX}</w:drawing></mc:Choice><mc:Fallback>"
              f"<w:pict>{BOX}</w:pict></mc:Fallback></mc:AlternateContent></w:r>"),
            ["In a box, twice."], id="text-box",
        ),
        pytest.param(
            p("<w:sdt><w:sdtContent><w:r><w:t>Filled in, it says.</w:t></w:r></w:sdtContent></w:sdt>"),
            ["Filled in, it says."], id="content-control",
        ),
        pytest.param(
            p("Terms of use", run="<w:b/>") + p(PARAGRAPH) + p("short line without end"),
            ["Terms of use|0", PARAGRAPH, "short line without end"], id="bold-heading",
        ),
        pytest.param(
            "<w:tbl>" + row(cell("<w:p/>"), cell(p("2024"), "<w:gridSpan w:val='2'/>"))
            + row(cell(p("North"), "<w:vMerge w:val='restart'/>"), cell(p("1")), cell(p("2")))
            + row(cell("<w:p/>", "<w:vMerge/>"), cell(p("3")), cell(p("4"))) + "</w:tbl>",
            ["|  | 2024 |  |\n| --- | --- | --- |\n| North | 1 | 2 |\n| North | 3 | 4 |"], id="merged-cells",
        ),
        pytest.param(
            p("<m:oMath><m:r><m:t>E=mc²</m:t></m:r></m:oMath><w:r><w:t>, as Einstein says.</w:t></w:r>"),
            ["E=mc², as Einstein says."], id="formula",
        ),
    ],
)  # fmt: skip
def test_word_keeps(body: str, expected: list[str]) -> None:
    notes = (
        f'<w:footnote w:type="separator" w:id="0">{p("—")}</w:footnote>'
        f'<w:footnote w:id="2">{p("The source.")}</w:footnote>'
    )
    assert shown(read(word(body, numbering=NUMBERING, footnotes=notes), ".docx")) == expected


def test_headers_of_word_pages_are_kept_apart() -> None:
    elements = read(word(p("The text of it."), header=p("ACME internal")), ".docx")
    assert [(e.kind, e.text) for e in elements] == [
        ("NarrativeText", "The text of it."),
        ("Header", "ACME internal"),
    ]


def test_articles_tell_their_place() -> None:
    elements = read(word(p("前言在此。") + p("第三条 甲方按月支付。")), ".docx")
    assert [(e.text, e.place and e.place.first) for e in elements] == [
        ("前言在此。", 1), ("第三条", 2), ("甲方按月支付。", 2),
    ]  # fmt: skip


def test_paragraphs_tell_their_place() -> None:
    elements = read(word(p("One is here.") + p("") + p("Three is here.")), ".docx")
    assert [(e.place.unit, e.place.first) for e in elements if e.place] == [
        ("paragraph", 1),
        ("paragraph", 3),
    ]


@pytest.mark.parametrize(
    ("number", "text"),
    [(3, "三"), (10, "十"), (15, "十五"), (20, "二十"), (103, "一百零三"), (1010, "一千零一十")],
)  # fmt: skip
def test_chinese_numbers(number: int, text: str) -> None:
    assert chinese(number) == text


@pytest.mark.parametrize(
    ("form", "text"),
    [("upperRoman", "XIV"), ("lowerLetter", "n"), ("decimalZero", "14"), ("decimalEnclosedCircle", "⑭")],
)
def test_forms_of_numbers(form: str, text: str) -> None:
    assert written(14, form) == text


def workbook() -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    sheet = book.active
    sheet.title = "工资表"
    sheet.append(["2024年工资"])
    sheet.append(["部门", "姓名", "入职", "比例", "总额", "时间"])
    sheet.append(["研发", "张三", datetime.date(2024, 3, 15), 0.155, "=SUM(A1:A2)", datetime.time(9, 30)])
    sheet.append([None, "李四", datetime.datetime.fromisoformat("2024-03-16T08:05"), 0.1, 0.1 + 0.2, True])
    sheet["D3"].number_format = sheet["D4"].number_format = "0.0%"
    sheet.merge_cells("A3:A4")
    sheet["B9"] = "far|below"
    hidden = book.create_sheet("lists")
    hidden.sheet_state = "hidden"
    hidden["C3"] = "x"
    return saved(book)


TABLE = (
    "| 部门 | 姓名 | 入职 | 比例 | 总额 | 时间 |\n| --- | --- | --- | --- | --- | --- |\n"
    "| 研发 | 张三 | 2024-03-15 | 15.5% | =SUM(A1:A2) | 09:30 |\n"
    "| 研发 | 李四 | 2024-03-16 08:05 | 10% | 0.3 | TRUE |\n"
    "|  | far\\|below |  |  |  |  |"
)


def test_sheets_show_what_excel_shows() -> None:
    elements = read(workbook(), ".xlsx")
    assert shown(elements) == [
        "工资表|0", "2024年工资",
        TABLE,
        "lists (hidden sheet)|0", "| x |\n| --- |",
    ]  # fmt: skip
    table = elements[2]
    assert table.place is not None
    assert (table.place.unit, table.place.first, table.place.last) == ("row", 2, 9)
    assert table.place.lines == (2, 3, 4, 9)
    assert [e.page for e in elements] == [1, 1, 1, 2, 2]


def deck() -> bytes:
    import pptx
    from pptx.chart.data import CategoryChartData
    from pptx.enum.chart import XL_CHART_TYPE
    from pptx.util import Inches

    presentation = pptx.Presentation()
    slide = presentation.slides.add_slide(presentation.slide_layouts[1])
    slide.shapes.title.text = "Plan"
    frame = slide.placeholders[1].text_frame
    frame.text = "first point"
    frame.add_paragraph().text = "second point"
    place = (Inches(1), Inches(1), Inches(2), Inches(2))
    group = slide.shapes.add_group_shape()
    group.shapes.add_textbox(*place).text_frame.text = "Grouped words."
    table = slide.shapes.add_table(2, 2, *place).table
    for at, text in enumerate(("k", "v", "a|b", "1")):
        table.cell(at // 2, at % 2).text = text
    data = CategoryChartData()
    data.categories = ["Q1", "Q2"]
    data.add_series("Sales", (3, 5))
    slide.shapes.add_chart(XL_CHART_TYPE.COLUMN_CLUSTERED, *place, data)
    slide.notes_slide.notes_text_frame.text = "Say it slowly, please."
    return saved(presentation)


def test_slides_are_read_with_groups_tables_charts_and_notes() -> None:
    elements = read(deck(), ".pptx")
    assert shown(elements) == [
        "Plan|0", "first point", "second point", "Grouped words.",
        "| k | v |\n| --- | --- |\n| a\\|b | 1 |", "|  | Sales |\n| --- | --- |\n| Q1 | 3 |\n| Q2 | 5 |",
        "Say it slowly, please.",
    ]  # fmt: skip
    assert {e.page for e in elements} == {1}
    assert [e.kind for e in elements[1:3]] == ["ListItem", "ListItem"]


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        pytest.param("<p>a <b>b</b>c<br>d</p>e", ["a bc\nd", "e"], id="inline"),
        pytest.param(
            "<a href=x><h3>Linked</h3></a><div>One<p>two</p>three</div>", ["Linked|2", "One", "two", "three"],
            id="mixed",
        ),
        pytest.param(
            "<ul><li>one<ul><li>two</li></ul></li><li><p>three</p></li></ul>", ["one", "two", "three"],
            id="lists",
        ),
        pytest.param("<pre>a\n  b<br>c</pre>", ["a\n  b\nc"], id="code"),
        pytest.param(
            "<p hidden>no</p><p style='display: none'>no</p><script>no</script><p>yes</p>", ["yes"],
            id="hidden",
        ),
        pytest.param("<ruby>汉<rt>hàn</rt>字<rp>(</rp></ruby>", ["汉字"], id="ruby"),
        pytest.param(
            "<table><tr><th rowspan=2>r</th><td>1</td></tr><tr><td>2</td></tr></table>",
            ["| r | 1 |\n| --- | --- |\n| r | 2 |"], id="spans",
        ),
        pytest.param("<table><tr><td><p>laid out</p></td></tr></table>", ["laid out"], id="layout"),
        pytest.param("<p>&lt;b&gt; &amp; &nbsp;x</p><!-- no -->", ["<b> & x"], id="entities"),
        pytest.param("", [], id="empty"),
    ],
)  # fmt: skip
def test_page_shows(html: str, expected: list[str]) -> None:
    assert shown(read(html.encode(), ".html")) == expected


def test_nothing_that_unstructured_reads_is_lost(tmp_path: Path) -> None:
    from unstructured.partition.auto import partition

    from ingest.partition import unstructured_api  # noqa: F401 - puts our tokenizer in place

    write_corpus(tmp_path / "corpus", share=0.02)
    files = sorted((tmp_path / "corpus").iterdir())
    assert {file.suffix for file in files} >= {
        ".docx",
        ".xlsx",
        ".pptx",
        ".html",
        ".eml",
        ".csv",
        ".txt",
        ".md",
    }
    for file in files:
        with file.open("rb") as stream:
            elements = formats.read(stream, file.suffix, Limits())
        assert {element.kind for element in elements} <= categories()
        ours = re.findall(r"\w+", " ".join(element.text for element in elements))
        theirs = re.findall(r"\w+", " ".join(e.text for e in partition(str(file), languages=["eng"])))
        assert theirs, file
        # pandas writes 3 as 3.0.
        missing = Counter(word for word in theirs if word != "0") - Counter(ours)
        assert not missing, f"{file.name}: {missing.most_common(10)}"


OPEN = (
    '<office:document-content xmlns:office="urn:oasis:names:tc:opendocument:xmlns:office:1.0"'
    ' xmlns:text="urn:oasis:names:tc:opendocument:xmlns:text:1.0"'
    ' xmlns:table="urn:oasis:names:tc:opendocument:xmlns:table:1.0"'
    ' xmlns:draw="urn:oasis:names:tc:opendocument:xmlns:drawing:1.0"'
    ' xmlns:presentation="urn:oasis:names:tc:opendocument:xmlns:presentation:1.0">'
    "<office:body>{}</office:body></office:document-content>"
)


def sheet_row(*texts: str, rest: int = 1, times: int = 1) -> str:
    cells = "".join(f"<table:table-cell><text:p>{text}</text:p></table:table-cell>" for text in texts)
    empty = f'<table:table-cell table:number-columns-repeated="{rest}"/>'
    return f'<table:table-row table:number-rows-repeated="{times}">{cells}{empty}</table:table-row>'


def test_open_document_sheets_are_read() -> None:
    table = (
        f'<table:table table:name="工资表">{sheet_row("姓名", "天数", rest=16382)}'
        f"{sheet_row('张三', '15', rest=16382)}{sheet_row(rest=16384, times=1000)}{sheet_row('李四', '9')}"
        f'{sheet_row(rest=16384, times=1047573)}</table:table><table:table table:name="empty"/>'
    )
    content = archive({"content.xml": OPEN.format(f"<office:spreadsheet>{table}</office:spreadsheet>")})
    title, element = read(content, ".ods")
    assert title.text == "工资表"
    assert element.text == "| 姓名 | 天数 |\n| --- | --- |\n| 张三 | 15 |\n| 李四 | 9 |"
    assert element.place is not None
    assert element.place.lines == (1, 2, 1003)


def test_open_document_slides_are_read() -> None:
    slide = (
        '<draw:page><draw:frame presentation:class="outline"><draw:text-box><text:list><text:list-item>'
        "<text:p>a point</text:p></text:list-item></text:list></draw:text-box></draw:frame>"
        '<draw:frame presentation:class="footer"><draw:text-box><text:p>no</text:p></draw:text-box>'
        "</draw:frame>"
        '<draw:frame presentation:class="title"><draw:text-box><text:p>Plan</text:p></draw:text-box>'
        "</draw:frame>"
        "</draw:page>"
    )
    content = archive({"content.xml": OPEN.format(f"<office:presentation>{slide * 2}</office:presentation>")})
    elements = read(content, ".odp")
    assert [(e.kind, e.text, e.page) for e in elements] == [
        ("Title", "Plan", 1), ("ListItem", "a point", 1), ("Title", "Plan", 2), ("ListItem", "a point", 2),
    ]  # fmt: skip
