"""Questions about documents as a whole: what there is, which name something, what one says, what changed.

Searching for passages answers these badly: the answer is in no passage, or in all of them. So they are
recognised by their form, and answered from the record.
"""

import functools
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from pathlib import Path, PurePosixPath
from typing import Literal, cast

from ingest.values import Chunk, DocumentInfo
from ingest.words import query_words, words
from rag.language import sentences
from rag.ports import Library

Kind = Literal["listing", "mentions", "summary", "changes"]

_FILES = "(?:files?|documents?|docs?|papers?|contracts?|reports?|texts?)"
_ZH_FILES = "(?:文件|文档|资料|合同|报告|材料)"
# A name counts as a document's when it holds that much of the words, by their length.
_LEAST_NAMED = 0.75
_CANDIDATES = 1000
_NUMBER = re.compile(r"[0-9]+")
_ARTICLES = frozenset(("the", "a", "an", "my", "our", "this", "that", "file", "document", "of"))


@dataclass(frozen=True, slots=True)
class Overview:
    """A recognised question. subject: what is sought or named; documents: those that the question names."""

    kind: Kind
    subject: str = ""
    documents: tuple[DocumentInfo, ...] = ()


@dataclass(frozen=True, slots=True)
class Mentions:
    """The chunks of one document that name something."""

    path: str
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """Sentences that stand in the first document only (before) or in the second only (after)."""

    before: tuple[str, ...]
    after: tuple[str, ...]


def recognise(question: str, documents: Callable[[], Sequence[DocumentInfo]]) -> Overview | None:
    """Tell what a question wants to know of whole documents; None: it is an ordinary one.

    documents: those that the asker may see; only looked at where the form fits. A summary or comparison whose
    names fit no document, or several equally well, is an ordinary question too.
    """
    plain = " ".join(question.split())
    for kind, form in _forms():
        if (match := form.match(plain)) is None:
            continue
        named = {name: text for name, text in match.groupdict().items() if text}
        if kind == "listing":
            return Overview(kind, documents=tuple(documents()))
        if kind == "mentions":
            return Overview(kind, subject=_unquoted(named["subject"]))
        known = [d for d in documents() if d.n_chunks]
        if kind == "changes" and "first" not in form.groupindex:
            pair = find_pair(named.get("pair", ""), known)
            return Overview(kind, subject=named.get("pair", ""), documents=pair) if pair else None
        found = tuple(d for text in named.values() if (d := find_document(text, known)) is not None)
        if len(found) == len(named) == len(set(found)):
            return Overview(kind, subject=" ".join(named.values()), documents=found)
    return None


@functools.cache
def _forms() -> tuple[tuple[Kind, re.Pattern[str]], ...]:
    lines = Path(__file__).with_name("overview_forms.txt").read_text("utf-8").splitlines()
    rows = [line.split(" ", 1) for line in lines if not line.startswith("#")]
    written = [(kind, form.replace("FILES", _FILES).replace("文件", _ZH_FILES)) for kind, form in rows]
    return tuple((cast("Kind", kind), re.compile(form, re.IGNORECASE)) for kind, form in written)


def find_document(name: str, documents: Sequence[DocumentInfo]) -> DocumentInfo | None:
    """Find the one document that a name means: by its path, else by the words of its path and title."""
    name = _unquoted(name)
    exact = [d for d in documents if name.casefold() in _names(d)]
    best = exact if len(exact) == 1 else _best_named(name, exact or documents)
    return best[0] if len(best) == 1 else None


def find_pair(name: str, documents: Sequence[DocumentInfo]) -> tuple[DocumentInfo, ...]:
    """Find the two documents that a name means alike, the earlier version first; () where there are not two.

    No name: all that there are. Where the paths differ by a number, it tells the order, else their times.
    """
    pair = _best_named(_unquoted(name), documents) if name else list(documents)
    if len(pair) != 2:
        return ()
    if len({_NUMBER.sub("", d.path) for d in pair}) == 1:
        return tuple(sorted(pair, key=lambda d: [int(number) for number in _NUMBER.findall(d.path)]))
    return tuple(sorted(pair, key=lambda d: (d.mtime_ns, d.path)))


def _best_named(name: str, documents: Sequence[DocumentInfo]) -> list[DocumentInfo]:
    """Give those that hold the most of a name's words, where that is enough."""
    # Not query_words(): May and Will are names here.
    asked = {word: len(word) for word in words(name) if word not in _ARTICLES}
    total = sum(asked.values())
    if not total:
        return []
    held = [(_held(asked, d) / total, d) for d in documents]
    most = max((share for share, _ in held), default=0.0)
    return [d for share, d in held if share == most >= _LEAST_NAMED]


def find_mentions(subject: str, library: Library, collections: frozenset[str] | None) -> list[Mentions]:
    """Find every document that names `subject`: as it is written, or all of its words in one chunk."""
    wanted = set(query_words(subject))
    hits = library.search_lexical(subject, limit=_CANDIDATES, collections=collections)
    by_path: dict[str, list[Chunk]] = defaultdict(list)
    for chunk in library.chunks([hit.chunk_id for hit in hits]):
        text = "\n".join((*chunk.heading_path, chunk.text))
        if subject.casefold() in text.casefold() or wanted <= set(words(text)):
            by_path[chunk.path].append(chunk)
    return [
        Mentions(path, tuple(sorted(chunks, key=lambda chunk: chunk.ordinal)))
        for path, chunks in sorted(by_path.items())
    ]


def find_changes(before: Sequence[Chunk], after: Sequence[Chunk]) -> list[Change]:
    """Compare two documents sentence by sentence; spaces do not count."""
    old, new = _sentences(before), _sentences(after)
    plain = [[re.sub(r"\s+", " ", sentence) for sentence in side] for side in (old, new)]
    blocks = SequenceMatcher(a=plain[0], b=plain[1], autojunk=False).get_opcodes()
    return [Change(tuple(old[i:j]), tuple(new[k:m])) for tag, i, j, k, m in blocks if tag != "equal"]


def _sentences(chunks: Sequence[Chunk]) -> list[str]:
    found: list[str] = []
    for chunk in chunks:
        cut = sentences(chunk.text)
        # Chunks overlap by whole sentences.
        for n in range(min(len(cut), len(found)), 0, -1):
            if found[-n:] == cut[:n]:
                cut = cut[n:]
                break
        found += cut
    return found


def _names(document: DocumentInfo) -> set[str]:
    path = PurePosixPath(document.path)
    return {name.casefold() for name in (document.path, path.name, path.stem, document.title)}


def _held(asked: dict[str, int], document: DocumentInfo) -> int:
    path = document.path.replace("/", " ")
    held = set(words(f"{path} {PurePosixPath(document.path).stem} {document.title}"))
    return sum(weight for word, weight in asked.items() if word in held)


def _unquoted(name: str) -> str:
    return name.strip().strip("\"'“”‘’«»《》「」【】").strip()
