"""1,000 mixed files, 50 MB, in English and Chinese: what the rows on ingestion read; made once."""

from __future__ import annotations

import io
import random
import shutil
import zipfile
from email.message import EmailMessage
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# Files and bytes of each kind. No PDF and no JSON: unstructured reads the one only with torch, the other not.
SHARES: dict[str, tuple[int, int]] = {
    "md": (200, 12_000_000),
    "txt": (200, 12_000_000),
    "html": (150, 8_000_000),
    "docx": (150, 6_000_000),
    "xlsx": (60, 2_000_000),
    "pptx": (60, 2_000_000),
    "csv": (80, 5_000_000),
    "eml": (100, 3_000_000),
}
# As many words and characters as such a collection has, drawn as Zipf says: counting tokens is not flattered.
_N_WORDS, _N_CHARACTERS = 20_000, 3_000
_SYLLABLES = (
    "con", "tract", "par", "ty", "sup", "ply", "de", "liv", "er", "goods", "with", "in", "days", "af", "ter",
    "no", "tice", "pay", "ment", "voice", "of", "fice", "tra", "vel", "po", "li", "cy", "em", "ploy", "ee",
    "ma", "na", "ger", "ap", "prove", "re", "quest", "bud", "get", "an", "nu", "al", "port", "mar", "ket",
)  # fmt: skip


def _zipf(n: int) -> list[float]:
    return list(accumulate(1 / (rank + 3) for rank in range(n)))


def _words(draw: random.Random) -> list[str]:
    """Make words of one to five syllables, the common ones short."""
    words: dict[str, None] = {}
    while len(words) < _N_WORDS:
        length = 1 + min(len(words) // 40, draw.randint(0, 4))
        words["".join(draw.choices(_SYLLABLES, k=length))] = None
    return list(words)


def _characters() -> list[str]:
    """Return the characters of GB2312's first level, in an order of our own."""
    level = [bytes([lead, tail]) for lead in range(0xB0, 0xD8) for tail in range(0xA1, 0xFF)]
    characters = [code.decode("gb2312", "ignore") for code in level]
    kept = [character for character in characters if character][:_N_CHARACTERS]
    random.Random(3).shuffle(kept)
    return kept


class Writer:
    """Draws sentences and writes one file of each kind."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)
        self._words, self._characters = _words(random.Random(2)), _characters()
        self._word_weights, self._character_weights = _zipf(len(self._words)), _zipf(len(self._characters))

    def sentence(self) -> str:
        draw = self._draw
        if draw.random() < 0.5:
            words = draw.choices(self._words, cum_weights=self._word_weights, k=draw.randint(6, 20))
            return " ".join(words).capitalize() + "."
        k = draw.randint(10, 40)
        return "".join(draw.choices(self._characters, cum_weights=self._character_weights, k=k)) + "。"

    def paragraph(self) -> str:
        return " ".join(self.sentence() for _ in range(self._draw.randint(2, 7)))

    def until(self, n_bytes: int, make: Callable[[int], str]) -> str:
        """Write blocks until they have so many bytes."""
        blocks: list[str] = []
        size = 0
        while size < n_bytes:
            blocks.append(make(len(blocks)))
            size += len(blocks[-1].encode()) + 1
        return "\n".join(blocks)

    def md(self, n_bytes: int) -> bytes:
        def block(n: int) -> str:
            if n % 6 == 0:
                return f"## {' '.join(self._draw.choices(self._words, k=4))}\n"
            if n % 6 == 5:
                return "".join(f"- {self.sentence()}\n" for _ in range(4))
            return f"{self.paragraph()}\n"

        return self.until(n_bytes, block).encode()

    def txt(self, n_bytes: int) -> bytes:
        return self.until(n_bytes, lambda _: self.paragraph() + "\n").encode()

    def html(self, n_bytes: int) -> bytes:
        def block(n: int) -> str:
            return (
                f"<h2>{self._draw.choice(self._words)} {n}</h2>"
                if n % 5 == 0
                else f"<p>{self.paragraph()}</p>"
            )

        return f"<html><body>{self.until(n_bytes, block)}</body></html>".encode()

    def csv(self, n_bytes: int) -> bytes:
        return (
            "number,english,text\n" + self.until(n_bytes, lambda n: f'{n},"{self.sentence()}",{n * 7}')
        ).encode()

    def eml(self, n_bytes: int) -> bytes:
        message = EmailMessage()
        message["From"], message["To"], message["Subject"] = "a@example.com", "b@example.com", self.sentence()
        message.set_content(self.until(n_bytes * 2 // 3, lambda _: self.paragraph() + "\n"))
        return message.as_bytes()

    def docx(self, n_bytes: int) -> bytes:
        import docx

        empty = io.BytesIO()
        docx.Document().save(empty)

        def block(n: int) -> str:
            style = '<w:pPr><w:pStyle w:val="Heading2"/></w:pPr>' if n % 6 == 0 else ""
            text = self._draw.choice(self._words) if style else self.paragraph()
            return f"<w:p>{style}<w:r><w:t>{text}</w:t></w:r></w:p>"

        # Word packs such text to about half.
        body = self.until(max(n_bytes * 2 - 60_000, 10_000), block)
        return _with_part(empty.getvalue(), "word/document.xml", "<w:sectPr", body)

    def xlsx(self, n_bytes: int) -> bytes:
        import openpyxl

        book = openpyxl.Workbook(write_only=True)
        sheet = book.create_sheet("data")
        for n in range(n_bytes // 75):
            sheet.append([n, self.sentence(), n * 1.5])
        return _saved(book)

    def pptx(self, n_bytes: int) -> bytes:
        import pptx

        deck = pptx.Presentation()
        for _ in range(max(1, (n_bytes - 25_000) // 1_300)):
            slide = deck.slides.add_slide(deck.slide_layouts[1])
            slide.shapes.title.text = self._draw.choice(self._words)
            slide.placeholders[1].text = self.paragraph()
        return _saved(deck)


def _saved(document: object) -> bytes:
    buffer = io.BytesIO()
    document.save(buffer)  # type: ignore[attr-defined] # two libraries, one method
    return buffer.getvalue()


def _with_part(archive: bytes, name: str, before: str, text: str) -> bytes:
    """Put text before a mark in one part of a zip."""
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as source,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for part in source.namelist():
            content = source.read(part)
            if part == name:
                content = content.replace(before.encode(), text.encode() + before.encode(), 1)
            target.writestr(part, content)
    return buffer.getvalue()


def write_corpus(folder: Path, *, share: float = 1.0) -> None:
    """Write the files, or a share of them, unless they are there; sizes vary."""
    if folder.exists():
        return
    unfinished = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    writer, draw = Writer(11), random.Random(12)
    for kind, (n_files, n_bytes) in SHARES.items():
        for n in range(max(1, int(n_files * share))):
            size = int(n_bytes / n_files * draw.uniform(0.5, 1.5))
            (unfinished / f"{kind}-{n:03}.{kind}").write_bytes(getattr(writer, kind)(size))
    unfinished.rename(folder)
