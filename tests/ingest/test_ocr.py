"""Scans and pictures, where OCR is installed; what is said where it is not; reading that was cut short."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import subprocess
import sys
import textwrap
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ingest.errors import PartitionError, UnsupportedFormat
from ingest.partition import formats, ocr
from ingest.partition.limits import Limits
from ingest.partition.page_log import PageStore, parse
from ingest.partition.partitioner import Partitioner
from tests.ingest.test_partition import archive, pdf, read

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from PIL import Image

    from tests.ingest.conftest import Place

FONT = Path("/usr/share/fonts/opentype/noto/NotoSansCJK-Regular.ttc")
LINES = [
    "员工每年享有十五天带薪年假。",
    "Annual leave is fifteen days for everybody.",
    "未使用的部分可以顺延。",
]
needs_ocr = pytest.mark.skipif(
    ocr.engine_name() is None or not FONT.exists(),
    reason="needs rapidocr and onnxruntime (an extra), and the font that draws Chinese",
)


def picture(lines: Sequence[str] = LINES) -> Image.Image:
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGB", (1240, 700), "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.truetype(str(FONT), 36, index=2)
    for n, line in enumerate(lines):
        draw.text((80, 60 + 80 * n), line, font=font, fill="black")
    return image


def saved(image: Image.Image, kind: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind)
    return buffer.getvalue()


@needs_ocr
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "WEBP"])
def test_picture_of_chinese_and_english_is_read_in_the_sandbox(tmp_path: Path, kind: str) -> None:
    with Partitioner() as partitioner:
        elements = read(partitioner, tmp_path / f"a.{kind.lower()}", saved(picture(), kind))
    text = " ".join(element.text for element in elements)
    for line in LINES:
        assert line in text
    assert {element.page for element in elements} == {1}


@needs_ocr
def test_only_pages_without_text_are_read_by_ocr(tmp_path: Path) -> None:
    import pypdfium2

    scan = tmp_path / "scan.pdf"
    scan.write_bytes(saved(picture(), "PDF"))
    both = pypdfium2.PdfDocument.new()
    typed = pdf([(11, "Trains are preferred to planes, wherever that is possible.")])
    both.import_pages(pypdfium2.PdfDocument(typed))
    both.import_pages(pypdfium2.PdfDocument(scan))
    buffer = io.BytesIO()
    both.save(buffer)
    content = buffer.getvalue()
    store = PageStore(tmp_path / "pages")
    sha256 = hashlib.sha256(content).digest()
    (tmp_path / "a.pdf").write_bytes(content)
    with Partitioner(count_tokens=words, pages=store) as partitioner:
        descriptor = os.open(tmp_path / "a.pdf", os.O_RDONLY)
        cut = partitioner.cut(descriptor, path="a.pdf", budget=100, limit=100, sha256=sha256)
    text = " ".join(chunk.text for chunk in cut.chunks)
    assert "Trains are preferred" in text
    assert LINES[0] in text
    # What took long is kept, and that is the second page alone.
    assert list(parse(store.path(sha256).read_text())) == ["2"]


def in_a_zip(scan: bytes) -> tuple[str, bytes]:
    return "a.zip", archive({"notes.txt": "Some words.", "scans/a.pdf": scan})


def in_a_message(scan: bytes) -> tuple[str, bytes]:
    message = EmailMessage()
    message["Subject"] = "Scan"
    message.set_content("See the scan.")
    message.add_attachment(
        archive({"a.pdf": scan}), maintype="application", subtype="zip", filename="scans.zip"
    )
    return "a.eml", message.as_bytes()


@needs_ocr
@pytest.mark.parametrize(
    ("container", "key"),
    [pytest.param(in_a_zip, "2/1", id="zip"), pytest.param(in_a_message, "1/1/1", id="zip-in-a-message")],
)
def test_scan_inside_of_a_file_is_read_once(
    tmp_path: Path, container: Callable[[bytes], tuple[str, bytes]], key: str
) -> None:
    name, content = container(saved(picture(), "PDF"))
    (tmp_path / name).write_bytes(content)
    store = PageStore(tmp_path / "pages")
    sha256 = hashlib.sha256(content).digest()
    texts = []
    for _ in range(2):
        with Partitioner(count_tokens=words, pages=store) as partitioner:
            descriptor = os.open(tmp_path / name, os.O_RDONLY)
            cut = partitioner.cut(descriptor, path=name, budget=100, limit=100, sha256=sha256)
            texts.append(" ".join(chunk.text for chunk in cut.chunks))
    assert LINES[0] in texts[0]
    assert texts[0] == texts[1]
    # Told once: the second time, nothing was read by OCR.
    assert store.path(sha256).read_text().count(f'"{key}"') == 1


@pytest.mark.skipif(ocr.engine_name() is not None, reason="says what is missing where it is missing")
def test_without_ocr_the_reason_says_what_to_install(tmp_path: Path) -> None:
    with Partitioner() as partitioner:
        with pytest.raises(UnsupportedFormat, match="pip install rapidocr onnxruntime"):
            read(partitioner, tmp_path / "a.png", b"\x89PNG")
        from PIL import Image

        scan = saved(Image.new("RGB", (300, 300), "white"), "PDF")
        with pytest.raises(PartitionError, match="pip install rapidocr onnxruntime"):
            read(partitioner, tmp_path / "a.pdf", scan)


@needs_ocr
def test_picture_without_text_and_flood_of_pixels_are_refused() -> None:
    from PIL import Image

    with pytest.raises(PartitionError, match="no text"):
        formats.read(io.BytesIO(saved(Image.new("RGB", (300, 300), "white"), "PNG")), ".png", Limits())
    flood = saved(Image.new("1", (9_000, 9_000)), "PNG")
    with pytest.raises(PartitionError, match="81000000 pixels"):
        formats.read(io.BytesIO(flood), ".png", Limits())


def words(texts: Sequence[str]) -> list[int]:
    return [len(text.split()) for text in texts]


def long_pdf() -> bytes:
    return pdf(
        *([(11, f"Page {n} says something of its own, line {k}.") for k in range(40)] for n in range(500))
    )


READER = textwrap.dedent(
    """
    import hashlib, os, sys
    from pathlib import Path
    from ingest.partition.page_log import PageStore
    from ingest.partition.partitioner import Partitioner
    from tests.ingest.test_ocr import words
    path, pages = Path(sys.argv[1]), Path(sys.argv[2])
    with Partitioner(count_tokens=words, pages=PageStore(pages)) as reader:
        sha256 = hashlib.sha256(path.read_bytes()).digest()
        cut = reader.cut(os.open(path, os.O_RDONLY), path=path.name, budget=100, limit=200, sha256=sha256)
    print(len(cut.chunks))
    """
)


@pytest.mark.parametrize(
    ("name", "place"), [pytest.param("a.pdf", "", id="pdf"), pytest.param("a.zip", "2/", id="in-a-zip")]
)
def test_killed_in_a_long_pdf_it_goes_on_after_the_last_page(tmp_path: Path, name: str, place: str) -> None:
    path, pages = tmp_path / name, tmp_path / "pages"
    inner = {"first.md": "# Before it", "long.pdf": long_pdf()}
    path.write_bytes(archive(inner) if place else long_pdf())
    sha256 = hashlib.sha256(path.read_bytes()).digest()
    command = [sys.executable, "-c", READER, str(path), str(pages)]
    kept = PageStore(pages).path(sha256)
    root = Path(__file__).parents[2]
    first = subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL)
    while not (kept.exists() and kept.read_bytes().count(b"\n") >= 100):
        assert first.poll() is None, "it was done before it could be killed"
        os.sched_yield()
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = parse(kept.read_text())
    assert 100 <= len(before) < 500
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    after = kept.read_text()
    assert set(parse(after)) == {f"{place}{n}" for n in range(1, 501)}
    # No page was read twice.
    numbers = [line.partition(",")[0] for line in after.split("\n") if line.endswith("]]]")]
    assert len(numbers) == len(set(numbers)) == 500
    with Partitioner(count_tokens=words) as reader:
        fresh = reader.cut(os.open(path, os.O_RDONLY), path=path.name, budget=100, limit=200)
    assert int(done.stdout) == len(fresh.chunks)


def test_half_a_line_is_a_page_not_read() -> None:
    assert parse('\n["1", [["a", 11.0]]]\n["2", [["b"') == {"1": [("a", 11.0)]}
    assert parse('\n["1", [["a", 11.0]]]\n["2", [["b"\n["4", []]') == {"1": [("a", 11.0)], "4": []}


def test_pages_of_what_was_set_aside_stay_until_it_is_read_or_gone(place: Place) -> None:
    """The last page breaks the reader: after `quarry retry`, the others are not read again."""
    content = long_pdf()
    place.write("a.pdf", content)
    library = place.open(limits=Limits(text_characters=400_000))
    kept = PageStore(place.data / "reading").path(hashlib.sha256(content).digest())
    library.reconcile()
    (document,) = library.documents()
    assert document.state == "quarantined"
    before = len(parse(kept.read_text()))
    assert before > 100
    assert library.retry("a.pdf") == ["a.pdf"]
    library.reconcile()
    lines = [line for line in kept.read_text().split("\n") if line]
    assert len(lines) == len(set(lines)) == before
    (place.documents / "a.pdf").unlink()
    library.reconcile()
    assert not kept.exists()


def test_pages_of_what_is_in_the_record_are_gone(tmp_path: Path) -> None:
    store = PageStore(tmp_path / "pages")
    store.append(b"a" * 32, "1", [["x", 1.0]])
    store.append(b"b" * 32, "1", [["y", 1.0]])
    store.keep_only([b"b" * 32])
    assert [file.name for file in (tmp_path / "pages").iterdir()] == [store.path(b"b" * 32).name]
