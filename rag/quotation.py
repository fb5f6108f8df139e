"""Answers made of the documents' own sentences: quoted, or put into words by a model that reads no more.

They are what a reader gets without a chat model, from the smallest ones, and where one has nothing to say.
"""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial

from anyio import to_thread

from engine.errors import ContextTooLong
from rag.asking import Ask, Parts, wanted_tokens
from rag.citations import Source, annotations, footer, quote_text
from rag.events import End, Event, Text
from rag.extract import best_sentences, extract
from rag.focus import CLOSE_TO_BEST, LONGEST_ANSWER, GroundedSentences, short_prompt
from rag.generating import generate
from rag.language import is_chinese
from rag.ports import ChatModel
from rag.prompt import disarm
from rag.query import Conversation, search_query

_NOTHING_FOUND = {
    "en": "The documents do not say anything about this.",
    "zh": "文档中没有找到与此相关的内容。",
}
_NO_DOCUMENTS = {
    "en": "There are no documents to answer from yet: put some into the documents folder.",
    "zh": "还没有可供查询的文档：请先把文档放进文档文件夹。",
}


async def nothing_found(ask: Ask, parts: Parts, *, chinese: bool) -> str:
    """Say that the documents do not, or that there are none."""
    empty = await to_thread.run_sync(parts.retriever.is_empty, ask.target.collections)
    return (_NO_DOCUMENTS if empty else _NOTHING_FOUND)["zh" if chinese else "en"]


async def quoted(
    ask: Ask, conversation: Conversation, sources: tuple[Source, ...], parts: Parts
) -> AsyncGenerator[Event, None]:
    """Answer with quotations, or say that there is nothing to quote."""
    chinese = is_chinese(conversation.question)
    text = await quotations(conversation, sources, parts) if sources else ""
    if not text:
        yield Text(await nothing_found(ask, parts, chinese=chinese))
        yield End("stop", 0, 0)
        return
    marks = annotations(text, sources)
    cited = tuple(sorted({n for n in range(1, len(sources) + 1) if f"[{n}]" in text}))
    yield Text(text + (footer(sources, cited=cited, chinese=chinese) if ask.with_footer else ""))
    yield End("stop", 0, 0, sources, cited, tuple(marks))


async def focused(
    ask: Ask, conversation: Conversation, sources: tuple[Source, ...], chat: ChatModel, parts: Parts
) -> AsyncGenerator[Event, None]:
    """Let a small model answer from a few sentences; quote those where it does not keep to them."""
    question = search_query(conversation)
    quotes = await to_thread.run_sync(
        partial(best_sentences, question, sources, embedder=parts.retriever.embedder, least=CLOSE_TO_BEST)
    )
    texts = [disarm(sentence, chat) for _, sentence in quotes]
    messages = short_prompt(conversation.question, texts, rule=parts.prompts.text("short", chinese=False))
    token_ids = await to_thread.run_sync(chat.prompt_tokens, messages)
    left = chat.context_length - len(token_ids)
    if left < 1:
        raise ContextTooLong(
            f"the question has {len(token_ids)} tokens; {chat.name} reads at most {chat.context_length}"
        )
    # Whatever the client sends: a drawn word is a wrong one here.
    params = replace(
        ask.params, temperature=0.0, max_tokens=min(wanted_tokens(ask, parts), LONGEST_ANSWER, left)
    )
    grounded, written, n_written = GroundedSentences(conversation.question, quotes), "", 0
    end = None
    async with aclosing(generate(chat, token_ids, params)) as pieces:
        async for piece in pieces:
            if isinstance(piece, End):
                end = piece
            elif isinstance(piece, Text):
                ready = quote_text(grounded.feed(piece.text), own_marks=True)
                written += ready
                n_written += sum(delta.n_tokens for delta in piece.deltas)
                yield Text(ready, piece.deltas)
                if grounded.ended:
                    end = End("stop", len(token_ids), n_written, n_cached_tokens=piece.n_cached_tokens)
                    break
            else:
                yield piece
    assert end is not None  # noqa: S101 (generate ends with it, or raises)
    rest = quote_text(grounded.flush(is_whole=end.finish_reason == "stop"), own_marks=True)
    if not (written + rest).strip():
        rest = await quotations(conversation, sources, parts)
    written += rest
    marks = annotations(written, sources)
    cited = tuple(source.number for source in sources if f"[{source.number}]" in written)
    listing = footer(sources, cited=cited, chinese=is_chinese(conversation.question))
    if tail := rest + (listing if ask.with_footer else ""):
        yield Text(tail)
    yield replace(end, finish_reason="stop", sources=sources, cited=cited, annotations=tuple(marks))


async def quotations(conversation: Conversation, sources: tuple[Source, ...], parts: Parts) -> str:
    """Quote what says the most about a question; "" where there is nothing to quote."""
    question = search_query(conversation)
    return await to_thread.run_sync(
        partial(extract, question, sources, embedder=parts.retriever.embedder_for(question))
    )
