"""pdf, by PDFium: unstructured's own path needs torch even for plain text."""

from __future__ import annotations

import ctypes
import itertools
import re
import statistics
import unicodedata
from collections import defaultdict
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from ingest.errors import LimitExceeded, PartitionError
from ingest.partition import ocr
from ingest.partition.articles import begins_division
from ingest.partition.headings import is_heading
from ingest.values import Element, Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pypdfium2  # type: ignore[import-untyped] # it has no stubs

    from ingest.partition.limits import Limits
    from ingest.partition.page_log import PageLines, PageLog

_WIDE = "[\u3000-\u303f\u3400-\u9fff\uff00-\uffef]"
_SPACED = re.compile(rf"(?<={_WIDE}) (?={_WIDE})")
_ADJOINING = re.compile(rf"{_WIDE}(?={_WIDE})")
# So many pages must have a line, and half of all, among their first or last lines.
_MIN_REPEATED = 3
_EDGE = 2
_EDGE_NUMBERS = 8
_ONLY_NUMBER = re.compile(r"[\W_]*(?:page|p|第|页|頁|第页|第頁)?[\W_]*", re.IGNORECASE)
_NUMBER = re.compile(r"(?<!\d)[0-9]{1,5}(?!\d)")
# Pages of a shorter document are read again sooner than they are kept.
_LONG = 50
_LITTLE_TEXT = 30
_MOST_OF_PAGE = 0.5
_MAX_OBJECTS = 2_000
_OCR_DPI = 200
_SENTENCE_ENDS = '。！？；….!?;:：”’」』"'


@dataclass(frozen=True, slots=True)
class PageLine:
    """A line of a page, with its type size; number: counted from 1 on its page."""

    text: str
    size: float
    page: int
    number: int


def read_pdf(file: IO[bytes], limits: Limits, pages: PageLog) -> list[Element]:
    """Read the text layer, page by page, or the picture of a page that has none and OCR is installed.

    Headings are lines in a clearly larger type; places are the lines of a page. Pages that `pages` knows are
    not read again.
    """
    import pypdfium2

    try:
        document = pypdfium2.PdfDocument(file.read(limits.file_bytes))
    except pypdfium2.PdfiumError as error:
        wants_password = "password" in str(error).lower()
        reason = "protected by a password" if wants_password else f"not a readable PDF ({error})"
        raise PartitionError(reason) from error
    reader = _Reader(document, limits, pages)
    lines = reader.lines()
    n_pages, garbled, pictures = len(document), reader.garbled, reader.pictures
    if garbled and len(garbled) * 2 >= n_pages:
        raise PartitionError(
            f"its text is not readable on {len(garbled)} of {n_pages} pages: the fonts do not say which"
            f" characters they draw; it needs {ocr.HOW_TO_INSTALL}"
        )
    if not lines:
        if not pictures or ocr.engine_name() is not None:
            raise PartitionError(f"no text on its {n_pages} pages")
        raise PartitionError(f"no text on its {n_pages} pages: a scan needs {ocr.HOW_TO_INSTALL}")
    lines, margins = _without_margins(lines)
    return [
        *paragraphs(lines),
        *(
            Element("UncategorizedText", f"[The text of page {page} is not readable.]", page=page)
            for page in garbled
        ),
        *(
            Element("Footer", f"[Page {page} is a picture; its text was not read.]", page=page)
            for page in pictures
        ),
        *(Element("Header", line.text, page=line.page) for line in margins),
    ]


class _Reader:
    """Read one document's pages; those without readable text are noted."""

    def __init__(self, document: pypdfium2.PdfDocument, limits: Limits, pages: PageLog) -> None:
        self._document = document
        self._limits = limits
        self._pages = pages
        self._can_ocr = ocr.engine_name() is not None
        self.garbled: list[int] = []
        self.pictures: list[int] = []

    def lines(self) -> list[PageLine]:
        lines: list[PageLine] = []
        n_characters = 0
        n_pages = len(self._document)
        for number in range(1, n_pages + 1):
            read = self._pages.get(number)
            if read is None:
                read = self._page(number, n_pages)
            n_characters += sum(len(text) for text, _ in read)
            if n_characters > self._limits.text_characters:
                raise LimitExceeded(f"more than {self._limits.text_characters} characters of text")
            lines += [PageLine(text, size, number, n) for n, (text, size) in enumerate(read, start=1)]
        return lines

    def _page(self, number: int, n_pages: int) -> PageLines:
        """Read a page that was not read before."""
        page = self._document[number - 1]
        try:
            read: PageLines | None = _page_lines(page)
        except _GarbledPage:
            read = None
        is_picture = read is not None and _is_picture(page, sum(len(text) for text, _ in read))
        slow = (read is None or is_picture) and self._can_ocr and self._pages.has_room(self._limits)
        if slow:
            read = _ocr_lines(page, self._limits)
        elif read is None:
            self.garbled.append(number)
            return []
        elif is_picture:
            self.pictures.append(number)
            return read
        if slow or n_pages >= _LONG:
            self._pages.put(number, read, slow=slow)
        page.close()
        return read


def _is_picture(page: pypdfium2.PdfPage, n_characters: int) -> bool:
    """Tell a scanned page: it has little text, and a picture over most of it."""
    import pypdfium2.raw as pdfium  # type: ignore[import-untyped] # it has no stubs

    if n_characters >= _LITTLE_TEXT:
        return False
    width, height = page.get_size()
    covered = 0.0
    for item in itertools.islice(page.get_objects(max_depth=3), _MAX_OBJECTS):
        if item.type == pdfium.FPDF_PAGEOBJ_IMAGE:
            left, bottom, right, top = item.get_bounds()
            covered += max(0.0, right - left) * max(0.0, top - bottom)
    return bool(covered > _MOST_OF_PAGE * width * height)


def _ocr_lines(page: pypdfium2.PdfPage, limits: Limits) -> PageLines:
    """Read a picture of the page; sizes in points, as in a text layer."""
    import numpy as np

    width, height = page.get_size()
    scale = min(_OCR_DPI / 72, (limits.pixels / max(width * height, 1.0)) ** 0.5)
    bitmap = page.render(scale=scale, rev_byteorder=False)
    pixels = bitmap.to_numpy()
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        pixels = np.repeat(pixels.reshape(*pixels.shape[:2], 1), 3, axis=2)
    lines = ocr.read_picture(np.ascontiguousarray(pixels[:, :, :3]))
    return [(_clean(line.text), round(line.height / scale, 1)) for line in lines if _clean(line.text)]


def _without_margins(lines: list[PageLine]) -> tuple[list[PageLine], list[PageLine]]:
    """Take out the lines that open or close most pages, page numbers aside; return the rest, and each once.

    Most: of all pages, or of the left or the right ones. They interrupt sentences that go over a page, and
    would be found by everything that they say. Only a number that counts with the pages is a page number: the
    sums at the feet of invoices are no footer.
    """
    pages = [list(group) for _, group in itertools.groupby(lines, key=lambda line: line.page)]
    if len(pages) < _MIN_REPEATED:
        return lines, []
    n_pages = pages[-1][0].page
    on_pages: dict[str, set[int]] = defaultdict(set)
    for page in pages:
        for line in (*page[:_EDGE], *page[-_EDGE:]):
            for key in _margin_keys(line, n_pages):
                on_pages[key].add(line.page)
    numbers = [page[0].page for page in pages]
    repeated = {key for key, found in on_pages.items() if _is_most(found, numbers)}
    kept: list[PageLine] = []
    margins: dict[str, PageLine] = {}
    for page in pages:
        for n, line in enumerate(page):
            same = next((key for key in _margin_keys(line, n_pages) if key in repeated), None)
            if same is not None and not _EDGE <= n < len(page) - _EDGE:
                margins.setdefault(same, line)
            else:
                kept.append(line)
    return (kept, list(margins.values())) if kept else (lines, [])


def _is_most(found: set[int], pages: list[int]) -> bool:
    if len(found) < _MIN_REPEATED:
        return False
    sides = ([page for page in pages if page % 2 == side] for side in (0, 1))
    return 2 * len(found) >= len(pages) or any(
        3 * len(found.intersection(side)) >= 2 * len(side) for side in sides if side
    )


def _margin_keys(line: PageLine, n_pages: int) -> Iterator[str]:
    """Yield what a line may have in common with those of other pages: itself, and it with a page number.

    The number need not be the page's own: a cover is often not counted, and an offprint begins at 345; but
    beyond the pages that there are, only a line that says nothing else is one. "Invoice 1001" counts, too.
    One at a time: the last page says "8 of 8".
    """
    yield line.text
    for number in itertools.islice(_NUMBER.finditer(line.text), _EDGE_NUMBERS):
        before, after = line.text[: number.start()], line.text[number.end() :]
        if 1 <= int(number[0]) <= n_pages or _ONLY_NUMBER.fullmatch(before + after):
            yield f"{before}\x00{int(number[0]) - line.page}\x00{after}"


def _page_lines(page: pypdfium2.PdfPage) -> PageLines:
    """Return a page's lines with the type size of their first character."""
    import pypdfium2.raw as pdfium

    text_page = page.get_textpage()
    n = text_page.count_chars()
    # By index, not as one string: sizes are asked for by character index, and PDFium's string may differ.
    buffer = (ctypes.c_ushort * (n + 1))()
    pdfium.FPDFText_GetText(text_page.raw, 0, n, buffer)
    text = bytes(buffer)[: 2 * n].decode("utf-16-le", errors="surrogatepass")
    if _is_garbled(text):
        raise _GarbledPage
    lines: PageLines = []
    start = 0
    for piece in text.split("\n"):
        clean = _clean(piece)
        if clean:
            size = float(pdfium.FPDFText_GetFontSize(text_page.raw, start))
            # Some producers write size 1 and scale the page: the height of the glyph's box tells then.
            lines.append((clean, size if size > 1.5 else _box_height(text_page, start)))
        start += len(piece) + 1
    text_page.close()
    return lines


class _GarbledPage(Exception):
    """The fonts of a page have no map to characters."""


def _is_garbled(text: str) -> bool:
    """Tell text of fonts without a ToUnicode map: codes of glyphs where characters should stand."""
    shown = [c for c in text if not c.isspace() and c not in "\x02\ufffe\u00ad"]
    bad = sum(c == "\ufffd" or unicodedata.category(c) in {"Co", "Cn", "Cc"} for c in shown)
    return bad > 0.2 * len(shown)


def _box_height(text_page: pypdfium2.PdfTextPage, index: int) -> float:
    _, bottom, _, top = text_page.get_charbox(index, loose=True)
    return float(top - bottom)


def _clean(text: str) -> str:
    # U+0002 and U+FFFE are PDFium's marks for a hyphen at the end of a line.
    kept = text.replace("\x02", "\u00ad").replace("\ufffe", "\u00ad")
    line = "".join(c for c in kept if c == "\u00ad" or c >= " ").strip("\u3000 \x7f")
    return _closed_up(line.encode("utf-8", "ignore").decode())


def _closed_up(line: str) -> str:
    """Take out the spaces that justified lines leave between Chinese characters; single ones may be meant."""
    spaced, adjoining = len(_SPACED.findall(line)), len(_ADJOINING.findall(line))
    return _SPACED.sub("", line) if spaced > 2 and 2 * spaced > adjoining else line


def paragraphs(lines: list[PageLine]) -> list[Element]:
    """Join lines into paragraphs and tell headings from them."""
    body = statistics.median(line.size for line in lines)
    full = statistics.quantiles([len(line.text) for line in lines], n=10)[8] if len(lines) > 1 else 0
    elements: list[Element] = []
    pending: list[PageLine] = []

    def flush() -> None:
        if pending:
            text = _join([line.text for line in pending])
            larger = pending[0].size > 1.15 * body
            heading = larger and is_heading(text)
            level = (0 if pending[0].size > 1.5 * body else 1) if heading else None
            kind = "Title" if heading else "NarrativeText"
            place = Place("line", pending[0].number, pending[-1].number)
            elements.append(Element(kind, text, level=level, page=pending[0].page, place=place))
            pending.clear()

    for line in lines:
        if pending:
            last = pending[-1]
            ended = last.text[-1] in _SENTENCE_ENDS and len(last.text) < 0.85 * full
            other_type = abs(last.size - line.size) > 0.1 * body
            if other_type or ended or last.page != line.page or begins_division(line.text):
                flush()
        pending.append(line)
    flush()
    return elements


def _join(lines: list[str]) -> str:
    """Join lines: Chinese without a space, a hyphenated word without its hyphen."""
    text = lines[0]
    for line in lines[1:]:
        if text.endswith("\u00ad"):
            text = text[:-1] + line
        elif ord(text[-1]) >= 0x2E80 and ord(line[0]) >= 0x2E80:
            text += line
        else:
            text += " " + line
    return text.replace("\u00ad", "-")
