"""Citations: checked while the answer streams, listed after it, stripped when they come back."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from rag.language import coverage, terms
from rag.quotes import is_verbatim, quoted_before
from rag.retriever import Passage

_WORD_FOR_WORD = "✓"
_LEGENDS = {"en": "✓ quoted word for word", "zh": "✓ 表示逐字引用"}
_HEADINGS = {"en": "Sources", "zh": "来源"}
FOOTER = re.compile(
    r"\n*-{3}\n\*\*(?:Sources|来源)\*\*\n\n(?:- \\?\[\[?\d+\\?\]\]?(?:\([^\s)]*\))? [^\n]*(?:\n|$))+"
    r"(?:\n?✓ [^\n]*)?\s*$"
)
_QUOTE_MARK = re.compile(r"(\[\d{1,3}\])✓")
_LINKED_MARK = re.compile(r"\[(\[\d{1,3}\])\]\(https?://[^\s)]*/s/[\w-]+\)")
_REASONING_LINES = re.compile(r"\A(?:> ?[^\n]*(?:\n|$))+\n*")
_MARKER = re.compile(r"\[(\d{1,3}(?:\s*[,，]\s*\d{1,3})*)\]")
_OPEN_MARKER = re.compile(
    r"(?:\[[\d\s,，]{0,20}|\$|`{1,3}[^\S\n]*(?:j(?:s(?:o(?:n(?::(?:m(?:c(?:p)?)?)?)?)?)?)?)?)\Z"
)
_MCP_FENCE = re.compile(r"(`{3,}[^\S\n]*json):mcp", re.IGNORECASE)
_PRICE = re.compile(r"(?<![\\$])\$(?=\d)")
# Not `]`: without `\[` it means nothing, and the pair of both escaped is maths to ChatGPT-Next-Web.
_MARKDOWN = re.compile(r"([\\`*_{}\[<>#|$~])")
_MATHS = re.compile(r"(?<!\\)\\([\[\]])")
_INLINE_MATHS = re.compile(r"\\(?=[()])")
# Keeps two characters from being read together, and is not seen.
_JOINER = "\u2060"
_LITERAL_MARKER = re.compile(r"\[(?=\d{1,3}(?:\s*[,，]\s*\d{1,3})*\])")
# More than the longest quotation.
_REMEMBERED = 700


@dataclass(frozen=True, slots=True)
class Source:
    """A numbered passage, as the answer may cite it.

    prompt_text: what the model reads of it, cut to the budget and without control tokens.
    """

    number: int
    passage: Passage
    prompt_text: str

    def as_json(self, *, cited: bool | None = None) -> dict[str, Any]:
        """Give the entry of the `sources` field. `cited` is null while the answer is not finished."""
        passage = self.passage
        return {
            "number": self.number,
            "chunk_ids": list(passage.chunk_ids),
            "collection": passage.collection,
            "path": passage.path,
            "title": passage.title,
            "heading_path": list(passage.heading_path),
            "page": passage.page,
            "score": round(passage.score, 6),
            "text": passage.text,
            "cited": cited,
        }


class CitationFilter:
    """Repair an answer while it streams.

    Markers of sources that do not exist go, `$` before a digit is escaped (two of them on a line would
    become maths), and fences of `json:mcp`, which some clients execute, lose their `:mcp`. Text that may
    still become one of these is held back until it is decided. A quotation that stands word for word in the
    source named behind it gets a mark, ✓.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._sources = {source.number: source for source in sources}
        self._said = ""
        self.has_quotes = False
        self._held = ""
        self._in_code = False
        self.cited: list[int] = []

    def feed(self, text: str) -> str:
        """Take the next piece; give what is certain."""
        self._held += text
        match = _OPEN_MARKER.search(self._held)
        cut = match.start() if match else len(self._held)
        ready, self._held = self._held[:cut], self._held[cut:]
        return self._repair(ready)

    def flush(self) -> str:
        """Give what was held back: the answer is at its end."""
        ready, self._held = self._held, ""
        return self._repair(ready)

    def _repair(self, text: str) -> str:
        text = _MCP_FENCE.sub(r"\1", text)
        parts = re.split(r"(`+)", text)
        for i, part in enumerate(parts):
            if i % 2:
                self._in_code = not self._in_code
            elif not self._in_code:
                parts[i] = _PRICE.sub(r"\\$", _MARKER.sub(self._check, part))
            self._said = (self._said + part)[-_REMEMBERED:]
        return "".join(parts)

    def _check(self, marker: re.Match[str]) -> str:
        numbers = [int(number) for number in re.findall(r"\d+", marker[1])]
        known = [n for n in numbers if n in self._sources]
        for number in known:
            if number not in self.cited:
                self.cited.append(number)
        marks = "".join(f"[{number}]" for number in known)
        quote = quoted_before(self._said + marker.string[: marker.start()])
        if not quote or not any(is_verbatim(quote, self._sources[n].passage.text) for n in known):
            return marks
        self.has_quotes = True
        return marks + _WORD_FOR_WORD


def supporting(text: str, sources: Sequence[Source]) -> list[int]:
    """Name the sources that an answer without markers seems to come from: those that hold its words."""
    said = terms(text)
    held = {source.number: coverage(said, source.passage.text) for source in sources}
    best = max(held.values(), default=0.0)
    return [number for number, share in held.items() if share >= 0.3 and share >= 0.7 * best]


def footer(
    sources: Sequence[Source], *, cited: Iterable[int], chinese: bool, has_quotes: bool = False
) -> str:
    """List the sources that the answer cites, or all of them where it cites none, as Markdown.

    has_quotes: whether the mark of quotations has to be explained.
    """
    wanted = set(cited)
    shown = [source for source in sources if source.number in wanted] or list(sources)
    if not shown:
        return ""
    lines = [f"- [{source.number}] {describe(source.passage)}" for source in shown]
    language = "zh" if chinese else "en"
    legend = f"\n\n{_LEGENDS[language]}" if has_quotes else ""
    return f"\n\n---\n**{_HEADINGS[language]}**\n\n" + "\n".join(lines) + legend


def describe(passage: Passage) -> str:
    """Name a passage in one line of Markdown: file, headings, page."""
    name = escape_markdown(passage.path)
    if passage.heading_path:
        name += ", " + escape_markdown(" › ".join(passage.heading_path))
    return name + (f", p. {passage.page}" if passage.page is not None else "")


def annotations(
    text: str, sources: Sequence[Source], *, url: Callable[[int], str | None] | None = None
) -> list[dict[str, Any]]:
    """Say where the answer cites what, in OpenAI's `url_citation` form; offsets are characters of `text`.

    url: gives a source's address by its number; without one it is a name that only we know.
    """
    by_number = {source.number: source for source in sources}
    found = []
    for marker in _MARKER.finditer(text):
        source = by_number.get(int(marker[1])) if marker[1].isdigit() else None
        if source is not None:
            passage = source.passage
            place = f"#page={passage.page}" if passage.page is not None else ""
            found.append(
                {
                    "type": "url_citation",
                    "url_citation": {
                        "start_index": marker.start(),
                        "end_index": marker.end(),
                        "title": passage.title or passage.path,
                        "url": (url and url(source.number)) or f"quarry:{quote(passage.path)}{place}",
                    },
                }
            )
    return found


def strip_own_marks(text: str) -> str:
    """Take our source list, links and leading `> ` reasoning lines off an answer that comes back."""
    plain = _LINKED_MARK.sub(r"\1", _REASONING_LINES.sub("", FOOTER.sub("", text)))
    return _QUOTE_MARK.sub(r"\1", plain).strip()


def quote_text(text: str, *, own_marks: bool = False) -> str:
    """Make document text safe to show.

    No maths from `$`, `\\[` or `\\(`, no block that a client would execute, and no `[2]` of its own that
    would read as a citation. own_marks: `[2]` is ours.
    """
    text = _MATHS.sub(r"\\\\\1", _MCP_FENCE.sub(r"\1", text))
    text = _INLINE_MATHS.sub(rf"\\{_JOINER}", text)
    if not own_marks:
        text = _LITERAL_MARKER.sub(f"[{_JOINER}", text)
    return re.sub(r"(?<!\\)\$", r"\\$", text)


def without_markers(text: str) -> str:
    """Put round brackets for those of a text that a model would take for its own citations."""
    return _MARKER.sub(r"(\1)", text)


def escape_markdown(text: str) -> str:
    """Show a name as it is written, on one line."""
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
