"""Answer a conversation: one stream of events, read by the HTTP API and by whoever comes later."""

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from anyio import to_thread

from engine.errors import ContextTooLong
from ingest.values import DocumentInfo
from rag.asking import Ask, Parts, share_context, wanted_tokens
from rag.citations import FOOTER, CitationFilter, Source, annotations, footer, supporting
from rag.errors import NotReady
from rag.events import Called, End, Event, Retrieved, Text, Thought
from rag.focus import is_small
from rag.forms import Form, instruct
from rag.generating import generate
from rag.language import is_chinese
from rag.links import Linking, MarkLinker
from rag.overview import Overview, recognise
from rag.ports import ChatModel, Message
from rag.prompt import Prompt, pack
from rag.query import Conversation, read_conversation, search_query
from rag.quotation import focused, nothing_found, quotations, quoted
from rag.retriever import Passage
from rag.tools import Tools, flatten, may_be_call
from rag.whole_documents import Reader, answer_whole

if TYPE_CHECKING:
    from engine.chat_model import Delta

# Set apart from what the documents say, so that nobody takes the one for the other.
_GENERALLY = {
    "en": "\n\n---\n**A general answer, not from your documents:**\n\n",
    "zh": "\n\n---\n**以下是一般性的回答，不来自您的文档：**\n\n",
}
_LOOP_LENGTH = 32
_LOOP_CHARACTERS = 8
_TITLE_WORDS = 5
_TITLE_CHARACTERS = 24
_SUMMARY_TURNS = 6


async def answer(ask: Ask, parts: Parts) -> AsyncGenerator[Event, None]:
    """Yield Retrieved (where documents are asked), Started (where a model writes), Text…, End.

    Called stands in the place of Text where the model calls tools. Closing the iterator cancels the
    generation. Raises: what the engine and the library raise.
    """
    events = _answer(ask, parts) if ask.tools is None else _with_tools(ask, ask.tools, parts)
    if ask.linking is not None and ask.form is None:
        events = _linked(events, ask.linking)
    async with aclosing(events):
        async for event in events:
            yield event


async def _linked(events: AsyncGenerator[Event, None], how: Linking) -> AsyncGenerator[Event, None]:
    """Turn the marks of an answer into links; its annotations point at where the marks then stand."""
    marks, written = MarkLinker(how), ""
    async with aclosing(events):
        async for event in events:
            if isinstance(event, Retrieved):
                marks.sources = {source.number: source for source in event.sources}
            if isinstance(event, Text):
                event = replace(event, text=marks.feed(event.text))  # noqa: PLW2901 (the same one, linked)
                written += event.text
            elif isinstance(event, End) and event.annotations:
                found = annotations(FOOTER.sub("", written), event.sources, url=marks.url)
                event = replace(event, annotations=tuple(found))  # noqa: PLW2901
            yield event


async def _answer(ask: Ask, parts: Parts) -> AsyncGenerator[Event, None]:
    conversation = read_conversation(flatten(ask.messages))
    chat = parts.engine.chat
    has_question = conversation.task == "question" and ask.messages[-1]["role"] != "tool"
    if ask.target.kind == "documents" and has_question:
        events = _from_documents(ask, conversation, parts)
    elif chat is not None:
        is_own = ask.target.kind == "documents" and conversation.task != "question"
        plain = [*conversation.history, _last(ask, conversation)] if is_own else None
        if conversation.task != "question":
            ask = replace(ask, thinking=False)  # clients show all of a title
        events = _from_model(ask, plain or list(ask.messages), chat, parts)
    else:
        events = _without_model(conversation)
    async with aclosing(events):
        async for event in events:
            yield event


async def _from_documents(ask: Ask, conversation: Conversation, parts: Parts) -> AsyncGenerator[Event, None]:
    overview = None if ask.form is not None else await to_thread.run_sync(_overview, ask, conversation, parts)
    if overview is not None:
        async with aclosing(_whole(ask, overview, conversation, parts)) as events:
            async for event in events:
                yield event
        return
    query = search_query(conversation)
    search = partial(
        parts.retriever.search,
        query,
        collections=ask.target.collections,
        limit=ask.search.limit,
        accepts=ask.search.accepts,
    )
    passages = await to_thread.run_sync(search)
    passages = [p for p in passages if p.similarity >= ask.search.least_similarity]
    chat = parts.engine.chat
    if ask.form is not None and chat is not None:
        async for event in _formed(ask, ask.form, conversation, passages, parts):
            yield event
        return
    if chat is None or not passages or is_small(chat):
        sources = tuple(Source(n, passage, passage.text) for n, passage in enumerate(passages, 1))
        yield Retrieved(query, sources)
        if chat is not None and not passages and not is_small(chat) and _may_go_beyond(ask, parts):
            events = _generally(ask, conversation, chat, parts)
        # The smallest models know English only.
        elif chat is not None and passages and not is_chinese(conversation.question):
            events = focused(ask, conversation, sources, chat, parts)
        else:
            _check_words(ask)
            events = quoted(ask, conversation, sources, parts)
        async with aclosing(events):
            async for event in events:
                yield event
        return
    room, params = share_context(ask, chat, parts)
    prompt = await _packed(
        conversation,
        passages,
        chat,
        room,
        parts,
        thinking=ask.thinking,
        rules="mixed" if _may_go_beyond(ask, parts) else "rules",
    )
    yield Retrieved(query, prompt.sources)
    marks = CitationFilter(prompt.sources)
    written, end = "", None
    n_written = 0
    async with aclosing(generate(chat, prompt.token_ids, params)) as pieces:
        async for piece in pieces:
            if isinstance(piece, End):
                end = piece
            elif isinstance(piece, Text):
                repaired = marks.feed(piece.text)
                written += repaired
                n_written += sum(delta.n_tokens for delta in piece.deltas)
                yield Text(repaired, piece.deltas)
                if is_looping(written):
                    end = End("stop", len(prompt.token_ids), n_written, n_cached_tokens=piece.n_cached_tokens)
                    break
            else:
                yield piece
    assert end is not None  # noqa: S101 (_generate ends with it, or raises)
    rest = marks.flush()
    if not (written + rest).strip():
        # A model that has nothing to say must not leave the reader with nothing.
        rest = await quotations(conversation, prompt.sources, parts)
    written += rest
    shown = marks.cited or supporting(written, prompt.sources)
    listing = footer(
        prompt.sources, cited=shown, chinese=is_chinese(conversation.question), has_quotes=marks.has_quotes
    )
    if tail := rest + (listing if ask.with_footer else ""):
        yield Text(tail)
    yield replace(
        end,
        sources=prompt.sources,
        cited=tuple(marks.cited),
        annotations=tuple(annotations(written, prompt.sources)),
    )


async def _packed(
    conversation: Conversation,
    passages: Sequence[Passage],
    chat: ChatModel,
    room: int,
    parts: Parts,
    *,
    thinking: bool | None,
    instruction: str = "",
    rules: Literal["rules", "mixed"] = "rules",
) -> Prompt:
    return await to_thread.run_sync(
        partial(
            pack,
            conversation,
            passages,
            chat=chat,
            context_tokens=parts.context_tokens,
            room=room,
            instruction=instruction,
            thinking=thinking,
            prompts=parts.prompts,
            rules=rules,
        )
    )


def _overview(ask: Ask, conversation: Conversation, parts: Parts) -> Overview | None:
    library, collections = parts.retriever.library, ask.target.collections

    def documents() -> list[DocumentInfo]:
        return [d for d in library.documents() if collections is None or d.collection in collections]

    return recognise(conversation.question, documents)


def _whole(
    ask: Ask, overview: Overview, conversation: Conversation, parts: Parts
) -> AsyncGenerator[Event, None]:
    chat, chinese = parts.engine.chat, is_chinese(conversation.question)
    reader = None
    if chat is not None and not is_small(chat):
        room, params = share_context(ask, chat, parts)
        reader = Reader(chat, room, params, parts.prompts)
    return answer_whole(
        overview,
        parts.retriever.library,
        collections=ask.target.collections,
        chinese=chinese,
        with_footer=ask.with_footer,
        reader=reader,
    )


def is_looping(text: str) -> bool:
    """Tell whether an answer goes round in circles: its end stands four times in its last 800 characters."""
    end = text[-_LOOP_LENGTH:]
    # Rules and borders of tables repeat too, but they are not made of words.
    return len(set(end)) >= _LOOP_CHARACTERS and text[-800:].count(end) >= 4


def _may_go_beyond(ask: Ask, parts: Parts) -> bool:
    return (ask.answers or parts.answers) == "mixed"


async def _generally(
    ask: Ask, conversation: Conversation, chat: ChatModel, parts: Parts
) -> AsyncGenerator[Event, None]:
    """Say that the documents do not, then let the model answer from what it knows, set apart."""
    chinese = is_chinese(conversation.question)
    yield Text(await nothing_found(ask, parts, chinese=chinese) + _GENERALLY["zh" if chinese else "en"])
    messages: list[Message] = [
        {"role": "system", "content": parts.prompts.text("general", chinese=chinese)},
        *conversation.history,
        {"role": "user", "content": conversation.question},
    ]
    async with aclosing(_from_model(ask, messages, chat, parts)) as pieces:
        async for piece in pieces:
            yield piece


async def _formed(
    ask: Ask, form: Form, conversation: Conversation, passages: list[Passage], parts: Parts
) -> AsyncGenerator[Event, None]:
    """Answer in the client's form, from the passages where there are any, else from the conversation."""
    chat = parts.engine.chat
    assert chat is not None  # noqa: S101 (the caller has looked)
    if not passages:
        yield Retrieved(search_query(conversation), ())
        async for event in _from_model(ask, list(ask.messages), chat, parts):
            yield event
        return
    room, params = share_context(ask, chat, parts)
    # The words of a thought would not fit the form.
    prompt = await _packed(
        conversation, passages, chat, room, parts, thinking=False, instruction=form.instruction
    )
    yield Retrieved(search_query(conversation), prompt.sources)
    async with aclosing(generate(chat, prompt.token_ids, params)) as pieces:
        async for piece in pieces:
            yield replace(piece, sources=prompt.sources) if isinstance(piece, End) else piece


async def _with_tools(ask: Ask, tools: Tools, parts: Parts) -> AsyncGenerator[Event, None]:
    """Let the model call a tool. Where it may and does not, documents are asked as without tools."""
    chat = parts.engine.chat
    if chat is None:
        raise NotReady("tools need a chat model: set QUARRY_CHAT_MODEL")
    written, is_prose = "", False
    deltas: list[Delta] = []
    asks_documents = ask.target.kind == "documents" and ask.messages[-1]["role"] != "tool"
    end = None
    calling = (
        ask if tools.grammar is None else replace(ask, params=replace(ask.params, grammar=tools.grammar))
    )
    async with aclosing(_from_model(calling, list(ask.messages), chat, parts)) as pieces:
        async for piece in pieces:
            if isinstance(piece, End):
                end = piece
            elif is_prose or isinstance(piece, Thought):
                yield piece
            elif isinstance(piece, Text):
                written += piece.text
                deltas += piece.deltas
                is_prose = tools.grammar is None and not may_be_call(written)
                if is_prose and asks_documents:
                    break
                if is_prose:
                    yield Text(written, tuple(deltas))
    calls = () if is_prose else tools.calls_in(written)
    if calls and end is not None:
        yield Called(calls)
        yield replace(end, finish_reason="stop" if tools.is_named else "tool_calls")
    elif asks_documents and tools.grammar is None:
        async with aclosing(_answer(replace(ask, tools=None), parts)) as events:
            async for event in events:
                yield event
    else:
        assert end is not None  # noqa: S101 (_from_model ends with it, or raises)
        if not is_prose:
            yield Text(written, tuple(deltas))
        yield end


async def _from_model(
    ask: Ask, messages: list[Message], chat: ChatModel, parts: Parts
) -> AsyncGenerator[Event, None]:
    token_ids = await to_thread.run_sync(_prompt, ask, messages, chat)
    left = chat.context_length - len(token_ids)
    if left < 1:
        raise ContextTooLong(
            f"the messages have {len(token_ids)} tokens; {chat.name} reads at most {chat.context_length}"
        )
    params = replace(ask.params, max_tokens=min(wanted_tokens(ask, parts), left))
    async with aclosing(generate(chat, token_ids, params, joined=True)) as pieces:
        async for piece in pieces:
            yield piece


async def _without_model(conversation: Conversation) -> AsyncGenerator[Event, None]:
    """Give clients the title or summary that they want for themselves, from the user's own words."""
    if conversation.task == "question":
        raise NotReady("no chat model is configured: set QUARRY_CHAT_MODEL")
    turns = [" ".join(turn.split()) for turn in conversation.turns]
    if conversation.task == "title":
        text = " ".join((turns or ["…"])[-1].split()[:_TITLE_WORDS])[:_TITLE_CHARACTERS]
    else:
        text = " / ".join(turns[-_SUMMARY_TURNS:]) or "…"
    yield Text(text)
    yield End("stop", 0, 0)


def _prompt(ask: Ask, messages: list[Message], chat: ChatModel) -> Sequence[int]:
    if ask.form is not None:
        messages = [*instruct(messages, ask.form.instruction)]
    # A form leaves no room for thoughts.
    thinking = False if ask.params.grammar is not None else ask.thinking
    if ask.tools is not None and chat.knows_tools:
        return chat.prompt_tokens(messages, tools=ask.tools.specs, thinking=thinking)
    if ask.tools is not None:
        return chat.prompt_tokens(ask.tools.tell(messages), thinking=thinking)
    return chat.prompt_tokens(messages if chat.knows_tools else flatten(messages), thinking=thinking)


def _check_words(ask: Ask) -> None:
    if ask.form is not None:
        raise NotReady("response_format needs a chat model: set QUARRY_CHAT_MODEL")


def _last(ask: Ask, conversation: Conversation) -> Message:
    return {"role": ask.messages[-1]["role"], "content": conversation.question}
