"""What ingestion hands around and hands out: frozen values, no behaviour."""

from __future__ import annotations

import hashlib
import unicodedata
from dataclasses import dataclass
from typing import Literal

_SIGNS = frozenset("%‰#@&")
# Currencies, mathematics, other symbols; what makes one letter of two.
_SAID = frozenset({"Sc", "Sm", "So", "Mn", "Mc"})
_WIDE = "\u2e80"

DocumentState = Literal["indexed", "failed", "quarantined"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands in a file whose text has no offsets: its first and last unit, counted from 1.

    unit: "paragraph" (docx, html), "row" (of a sheet), "line" (of a page), "page".
    lines: of a table, the unit that each row of its text begins with, where these are known.
    """

    unit: str
    first: int
    last: int
    lines: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Element:
    """One structural piece of a document, in reading order.

    kind: unstructured's category (Title, NarrativeText, ListItem, Table, CodeSnippet, ...).
    level: 0 for the outermost heading; None for what is not a heading.
    page: counted from 1 (page, slide); None where the format has none.
    start, end: where it stands in the file's decoded text, newlines as \\n; None where that says nothing.
    place: where it stands in a file that is no text.
    """

    kind: str
    text: str
    level: int | None = None
    page: int | None = None
    start: int | None = None
    end: int | None = None
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class ChunkDraft:
    """A chunk before it has an id.

    start, end: character offsets in the file's decoded text where its format is text, else in the extracted
    text (its elements joined by a blank line).
    n_tokens: of `embedding_text`, special tokens not counted; summed over its sentences, unless that comes
    near what the embedder reads.
    n_overlap: how many characters at the beginning of `text` the chunk before has, too.
    searchable: False for what is kept and not searched, the headers and footers of pages.
    place: where it stands in a file that is no text; unit "page" where it goes over pages.
    """

    text: str
    heading_path: tuple[str, ...]
    page: int | None
    n_tokens: int
    start: int
    end: int
    n_overlap: int = 0
    searchable: bool = True
    place: Place | None = None

    @property
    def embedding_text(self) -> str:
        """The text that is embedded and indexed: heading path, blank line, text."""
        return embedding_text(self.heading_path, self.text)

    @property
    def text_hash(self) -> bytes:
        """The key of the chunk's vector."""
        return hashlib.sha256(self.embedding_text.encode()).digest()

    @property
    def words_hash(self) -> bytes | None:
        """Equal for texts that say the same words and numbers; None without any."""
        return words_hash(self.text)


def words_hash(text: str) -> bytes | None:
    """Hash what a text says, whatever its case, width, blanks and marks; None where it says nothing.

    Numbers keep what stands in them, and signs are said: 3.5 % is neither 35 % nor 3.5 nor -3.5 %.
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    words: list[str] = []
    is_apart = False
    for place, character in enumerate(plain):
        if not character.isalnum() and not _is_said(plain, place):
            is_apart = True
            continue
        # Blanks between Chinese characters come from how a page was set.
        if is_apart and words and words[-1] < _WIDE and character < _WIDE:
            words.append(" ")
        words.append(character)
        is_apart = False
    return hashlib.sha256("".join(words).encode("utf-8", "ignore")).digest()[:16] if words else None


def _is_said(text: str, place: int) -> bool:
    """Tell a mark that means something: a sign, a currency, part of a word or of a number."""
    character = text[place]
    if character in _SIGNS or unicodedata.category(character) in _SAID:
        return True
    if character.isspace() or not text[place + 1 : place + 2].isdigit():
        return False
    before = text[place - 1] if place else " "
    return before.isdigit() or (character == "-" and not before.isalnum())


def embedding_text(heading_path: tuple[str, ...], text: str) -> str:
    """Prepend the heading path, so that a passage is found by the section it stands in."""
    return f"{' > '.join(heading_path)}\n\n{text}" if heading_path else text


@dataclass(frozen=True, slots=True)
class Chunk:
    """A visible chunk, as stored; start, end, n_overlap: as in ChunkDraft.

    indexed: False for what searches leave out: further copies of the same words, headers and footers.
    """

    id: int
    document_id: int
    path: str
    title: str
    collection: str
    ordinal: int
    heading_path: tuple[str, ...]
    page: int | None
    text: str
    n_tokens: int
    start: int = 0
    end: int = 0
    n_overlap: int = 0
    indexed: bool = True
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Hit:
    """A chunk found by one index; scores compare only within one ranking."""

    chunk_id: int
    score: float


@dataclass(frozen=True, slots=True)
class CollectionInfo:
    name: str
    n_documents: int
    n_chunks: int


@dataclass(frozen=True, slots=True)
class DocumentInfo:
    """A document's state; version 0: nothing of it is visible yet.

    seconds: what the last attempt took, reading and embedding; indexed_at: when the visible version was
    made, in UTC; offsets_in_file: whether its chunks' offsets are those of the file's decoded text.
    """

    id: int
    path: str
    collection: str
    title: str
    state: DocumentState
    version: int
    n_chunks: int
    n_tokens: int
    reason: str | None
    attempts: int
    size: int
    mtime_ns: int
    seconds: float = 0.0
    indexed_at: str | None = None
    offsets_in_file: bool = False


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What tells an unchanged file without reading it."""

    size: int
    mtime_ns: int
    inode: int


@dataclass(frozen=True, slots=True)
class KnownFile:
    """A document as the record last saw its file."""

    document_id: int
    path: str
    facts: FileFacts
    sha256: bytes
    state: DocumentState
    attempts: int


@dataclass(frozen=True, slots=True)
class NewVersion:
    """A document's content, ready to become visible."""

    path: str
    collection: str
    facts: FileFacts
    sha256: bytes
    title: str
    chunks: tuple[ChunkDraft, ...]
    offsets_in_file: bool = False
    seconds: float = 0.0
