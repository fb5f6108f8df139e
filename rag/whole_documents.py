"""Answer questions about documents as a whole, with sources and visible progress."""

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial

from anyio import to_thread

from engine.chat_model import GenerationParams
from ingest.values import Chunk, DocumentInfo
from rag.citations import CitationFilter, Source, annotations, footer, quote_text
from rag.events import End, Event, Retrieved, Text, Thought
from rag.generating import generate
from rag.language import sentences
from rag.overview import Overview, find_changes, find_mentions
from rag.ports import ChatModel, Library, Message
from rag.prompt import disarm
from rag.prompt_files import Prompts
from rag.retriever import passage_of

_MOST_LISTED = 50
_MOST_CHANGES = 30
_MOST_QUOTED = 8
_PARTIAL_TOKENS = 256
_STATEMENT = re.compile(r"[.!。！；;]\W*$")
_WORDS = {
    "en": {
        "none": "There are no documents yet.",
        "listed": "There are {n} documents:",
        "more": "… and {n} more.",
        "unmentioned": "No document mentions “{subject}”.",
        "mentioned": "{n} of the documents mention “{subject}”:",
        "passages": "{path}, {n} passages: “{quote}”",
        "passage": "{path}: “{quote}”",
        "same": "{first} and {second} say the same.",
        "changed": "{n} places differ between {first} [1] and {second} [2]:",
        "removed": "only in [1]: “{text}”",
        "added": "only in [2]: “{text}”",
        "quoted": "{path} says, in short:",
        "reading": "Reading part {part} of {n} of {path} …\n",
    },
    "zh": {
        "none": "还没有文档。",
        "listed": "共有 {n} 个文档：",
        "more": "……还有 {n} 个。",
        "unmentioned": "没有文档提到“{subject}”。",
        "mentioned": "有 {n} 个文档提到“{subject}”：",
        "passages": "{path}，{n} 处：“{quote}”",
        "passage": "{path}：“{quote}”",
        "same": "{first} 和 {second} 的内容相同。",
        "changed": "{first} [1] 与 {second} [2] 有 {n} 处不同：",
        "removed": "只在 [1]：“{text}”",
        "added": "只在 [2]：“{text}”",
        "quoted": "{path} 的要点：",
        "reading": "正在读 {path} 的第 {part} 部分，共 {n} 部分……\n",
    },
}


@dataclass(frozen=True, slots=True)
class Reader:
    """The model that may read a document whole, and what it is told.

    room: tokens of a prompt; params: of the answer.
    """

    chat: ChatModel
    room: int
    params: GenerationParams
    prompts: Prompts


async def answer_whole(
    overview: Overview,
    library: Library,
    *,
    collections: frozenset[str] | None,
    chinese: bool,
    with_footer: bool,
    reader: Reader | None,
) -> AsyncGenerator[Event, None]:
    """Yield Retrieved, Thought… while a long document is read, Text…, End.

    reader None: summaries are quotations. Raises: what the engine and the library raise.
    """
    said = _WORDS["zh" if chinese else "en"]
    if overview.kind == "summary":
        (document,) = overview.documents
        chunks = await to_thread.run_sync(library.document_chunks, document.path)
        events = (
            _quoted_summary(document, chunks, said)
            if reader is None
            else _summary(document, chunks, reader, said, chinese=chinese)
        )
    else:
        write = {"listing": _listing, "mentions": _mentions, "changes": _changes}[overview.kind]
        events = _told(partial(write, overview, library, collections, said))
    sources: tuple[Source, ...] = ()
    written, end = "", End("stop", 0, 0)
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Retrieved):
                sources = event.sources
            elif isinstance(event, Text):
                written += event.text
            elif isinstance(event, End):
                end = event
                continue
            yield event
    cited = tuple(source.number for source in sources if f"[{source.number}]" in written)
    if with_footer and (listing := footer(sources, cited=cited, chinese=chinese)):
        yield Text(listing)
    yield replace(end, sources=sources, cited=cited, annotations=tuple(annotations(written, sources)))


async def _told(write: Callable[[], tuple[str, tuple[Source, ...]]]) -> AsyncGenerator[Event, None]:
    text, sources = await to_thread.run_sync(write)
    yield Retrieved("", sources)
    yield Text(text)


def _listing(
    overview: Overview, library: Library, collections: frozenset[str] | None, said: dict[str, str]
) -> tuple[str, tuple[Source, ...]]:
    del library, collections
    documents = sorted(overview.documents, key=lambda document: document.path)
    if not documents:
        return said["none"], ()
    lines = [f"- {quote_text(document.path)}" for document in documents[:_MOST_LISTED]]
    return _list(said["listed"].format(n=len(documents)), lines, len(documents), said), ()


def _mentions(
    overview: Overview, library: Library, collections: frozenset[str] | None, said: dict[str, str]
) -> tuple[str, tuple[Source, ...]]:
    subject = overview.subject
    found = find_mentions(subject, library, collections)
    if not found:
        return said["unmentioned"].format(subject=quote_text(subject)), ()
    shown, sources, lines = found[:_MOST_LISTED], [], []
    for number, mention in enumerate(shown, 1):
        first = mention.chunks[0]
        sources.append(Source(number, passage_of([first]), first.text))
        quote = next((s for s in sentences(first.text) if subject.casefold() in s.casefold()), first.text)
        form = said["passage" if len(mention.chunks) == 1 else "passages"]
        quoted = quote_text(" ".join(quote.split())[:200])
        lines.append(
            f"- {form.format(path=quote_text(mention.path), n=len(mention.chunks), quote=quoted)} [{number}]"
        )
    head = said["mentioned"].format(n=len(found), subject=quote_text(subject))
    return _list(head, lines, len(found), said), tuple(sources)


def _changes(
    overview: Overview, library: Library, collections: frozenset[str] | None, said: dict[str, str]
) -> tuple[str, tuple[Source, ...]]:
    del collections
    first, second = overview.documents
    before, after = library.document_chunks(first.path), library.document_chunks(second.path)
    sources = tuple(
        Source(number, passage_of([side[0]]), side[0].text) for number, side in enumerate((before, after), 1)
    )
    names = {"first": quote_text(first.path), "second": quote_text(second.path)}
    changes = find_changes(before, after)
    if not changes:
        return said["same"].format(**names), sources
    lines = []
    for change in changes[:_MOST_CHANGES]:
        sides = (("removed", change.before), ("added", change.after))
        told = [said[key].format(text=quote_text(" ".join(texts))) for key, texts in sides if texts]
        lines.append(f"- {'; '.join(told)}")
    return _list(said["changed"].format(n=len(changes), **names), lines, len(changes), said), sources


def _list(head: str, lines: Sequence[str], n: int, said: dict[str, str]) -> str:
    rest = [said["more"].format(n=n - len(lines))] if n > len(lines) else []
    return "\n".join((head, "", *lines, *rest))


async def _quoted_summary(
    document: DocumentInfo, chunks: Sequence[Chunk], said: dict[str, str]
) -> AsyncGenerator[Event, None]:
    """Quote how the parts of a document begin."""
    begins: dict[tuple[str, ...], Chunk] = {}
    for chunk in chunks:
        begins.setdefault(chunk.heading_path, chunk)
    parts = list(begins.values())
    step = max(1, -(-len(parts) // _MOST_QUOTED))
    sources = tuple(
        Source(number, passage_of([chunk]), chunk.text) for number, chunk in enumerate(parts[::step], 1)
    )
    yield Retrieved("", sources)
    lines = [f"- “{quote_text(_first_statement(s.passage.text))}” [{s.number}]" for s in sources]
    yield Text("\n".join((said["quoted"].format(path=quote_text(document.path)), "", *lines)))


def _first_statement(text: str) -> str:
    """Give the first sentence that says something: no heading, and no question."""
    found = [" ".join(sentence.split()) for sentence in sentences(text)]
    return next((s for s in found if _STATEMENT.search(s)), found[0] if found else "")


async def _summary(
    document: DocumentInfo, chunks: Sequence[Chunk], reader: Reader, said: dict[str, str], *, chinese: bool
) -> AsyncGenerator[Event, None]:
    """Let the model read the whole document: at once where it fits, else part by part."""
    chat = reader.chat
    ask = partial(reader.prompts.text, chinese=chinese, title=document.title or document.path)
    task = ask("summary")
    parts = await to_thread.run_sync(_parts, chunks, chat, reader.room - chat.count_tokens(task) - 64)
    groups = [[chunk] for chunk in chunks] if len(parts) == 1 else parts
    sources = tuple(Source(n, passage_of(group), _text(group, chat)) for n, group in enumerate(groups, 1))
    yield Retrieved("", sources)
    told = [source.prompt_text for source in sources]
    if len(parts) > 1:
        told = []
        for number, group in enumerate(parts, 1):
            yield Thought(said["reading"].format(part=number, n=len(parts), path=document.path), 0)
            prompt = await to_thread.run_sync(_prompt, ask("part"), _text(group, chat), chat)
            params = replace(reader.params, max_tokens=_PARTIAL_TOKENS)
            pieces = [e.text async for e in generate(chat, prompt, params) if isinstance(e, Text)]
            told.append("".join(pieces))
    while len(told) > 1 and chat.count_tokens("\n\n".join(told)) > reader.room - 128:
        told = [text[: len(text) * 3 // 4] for text in told]
    listing = "\n\n".join(f"[{number}] {text}" for number, text in enumerate(told, 1))
    prompt = await to_thread.run_sync(_prompt, task, listing, chat)
    marks = CitationFilter(sources)
    async with aclosing(generate(chat, prompt, reader.params)) as events:
        async for event in events:
            if isinstance(event, Text):
                yield Text(marks.feed(event.text), event.deltas)
            elif isinstance(event, End):
                yield Text(marks.flush())
                yield event
            else:
                yield event


def _parts(chunks: Sequence[Chunk], chat: ChatModel, room: int) -> list[list[Chunk]]:
    """Group chunks, in order, so that each group fits the room."""
    groups: list[list[Chunk]] = [[]]
    used = 0
    for chunk in chunks:
        n = chat.count_tokens(chunk.text) + 8
        if groups[-1] and used + n > room:
            groups.append([])
            used = 0
        groups[-1].append(chunk)
        used += n
    return groups


def _text(chunks: Sequence[Chunk], chat: ChatModel) -> str:
    return disarm("\n\n".join(chunk.text for chunk in chunks), chat)


def _prompt(task: str, text: str, chat: ChatModel) -> Sequence[int]:
    messages: list[Message] = [{"role": "system", "content": task}, {"role": "user", "content": text}]
    return chat.prompt_tokens(messages, thinking=False)
