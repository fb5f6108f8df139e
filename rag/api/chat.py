"""POST /v1/chat/completions."""

import json
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog
from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from rag import sse, wire
from rag.answer import Ask, End, Event, Retrieved, Text, answer
from rag.citations import Source
from rag.errors import to_api_error
from rag.models import resolve_chat
from rag.service import Service, service_of, unless_gone

if TYPE_CHECKING:
    from engine.chat_model import Delta

log = structlog.get_logger("quarry.chat")
router = APIRouter()

# An error within this time still becomes an HTTP status; then the headers go out, because clients give up
# on a server that sends none.
_HEADERS_AFTER_S = 1.0
_KEEP_ALIVE_S = 10.0
# What is drawn when the client does not say: answers from documents stay close to them.
_TEMPERATURES = {"documents": 0.2, "chat": 0.7}
_LONGEST_HEADER = 4000


@router.post("/chat/completions")
async def create_chat_completion(body: wire.ChatRequest, request: Request) -> Response:
    """Answer a conversation, streamed or whole."""
    service = service_of(request)
    ask = await to_thread.run_sync(_read, body, service)
    leave = service.admission.enter()
    streaming = False
    try:
        completion = Completion(model=body.model, with_logprobs=bool(body.logprobs))
        events = sse.Patient(_events(ask, service))
        if not body.stream:
            return await unless_gone(request, _whole(completion, events))
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        first = await unless_gone(request, _first(events))
        stream = _stream(completion, events, first, include_usage=include_usage, leave=leave)
        streaming = True
        return sse.EventStream(stream, headers=_source_headers(first))
    finally:
        if not streaming:
            leave()


@dataclass(slots=True)
class Completion:
    """What every chunk of an answer repeats."""

    model: str
    with_logprobs: bool
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=wire.now)

    def chunk(self, choices: list[dict[str, Any]], **extra: Any) -> bytes:
        """Encode a chunk of the stream."""
        head = {
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.created,
            "model": self.model,
        }
        return sse.event({**head, "choices": choices, **extra})

    def delta(self, delta: dict[str, Any], **extra: Any) -> bytes:
        """Encode a chunk that goes on with the only choice."""
        return self.chunk([{"index": 0, "delta": delta, "logprobs": None, "finish_reason": None, **extra}])


def _read(body: wire.ChatRequest, service: Service) -> Ask:
    wire.check_supported(body)
    messages = wire.plain_messages(body)
    target = resolve_chat(
        body.model,
        engine=service.parts.engine,
        library=service.library,
        aliases=service.settings.gpt_aliases,
    )
    params = wire.generation_params(body, temperature=_TEMPERATURES[target.kind])
    footer = service.settings.sources_footer if body.sources_footer is None else body.sources_footer
    return Ask(target, messages, params, with_footer=footer)


async def _events(ask: Ask, service: Service) -> AsyncGenerator[Event, None]:
    async with aclosing(answer(ask, service.parts)) as events:
        async for event in events:
            if isinstance(event, End):
                log.info(
                    "answered",
                    target=ask.target.kind,
                    sources=len(event.sources),
                    prompt_tokens=event.n_prompt_tokens,
                    completion_tokens=event.n_completion_tokens,
                    finish_reason=event.finish_reason,
                )
            yield event


async def _first(events: sse.Patient[Event]) -> list[Event]:
    """Wait a moment for the search and the admission, whose errors deserve an HTTP status."""
    first: list[Event] = []
    try:
        while item := await events.next(within=_HEADERS_AFTER_S):
            first.append(item[0])
            if not isinstance(item[0], Retrieved):
                break
    except TimeoutError:
        pass
    except BaseException:
        await events.aclose()
        raise
    return first


async def _whole(completion: Completion, events: sse.Patient[Event]) -> Response:
    """Collect the answer into one body."""
    text = ""
    deltas: list[Delta] = []
    sources: tuple[Source, ...] = ()
    end = None
    async with aclosing(events):
        while item := await events.next(within=float("inf")):
            event = item[0]
            if isinstance(event, Text):
                text += event.text
                deltas += event.deltas
            elif isinstance(event, Retrieved):
                sources = event.sources
            elif isinstance(event, End):
                end = event
    assert end is not None  # noqa: S101 (an answer ends with it, or raises)
    message: dict[str, Any] = {"role": "assistant", "content": text, "refusal": None}
    if end.annotations:
        message["annotations"] = list(end.annotations)
    listing = wire.sources_json(end.sources, end.cited)
    if listing:
        message["sources"] = listing
    choice = {
        "index": 0,
        "message": message,
        "logprobs": wire.logprobs(deltas) if completion.with_logprobs else None,
        "finish_reason": end.finish_reason,
    }
    body = {
        "id": completion.id,
        "object": "chat.completion",
        "created": completion.created,
        "model": completion.model,
        "choices": [choice],
        "usage": wire.usage(end.n_prompt_tokens, end.n_completion_tokens),
        "sources": listing,
    }
    return JSONResponse(body, headers=_header(sources))


async def _stream(
    completion: Completion,
    events: sse.Patient[Event],
    first: list[Event],
    *,
    include_usage: bool,
    leave: Callable[[], None],
) -> AsyncGenerator[bytes, None]:
    """Encode the answer as it comes; empty deltas while it does not."""
    try:
        yield completion.delta({"role": "assistant", "content": ""})
        for event in first:
            for data in _encode(completion, event, include_usage=include_usage):
                yield data
        while True:
            try:
                item = await events.next(within=_KEEP_ALIVE_S)
            except TimeoutError:
                yield completion.delta({})
                continue
            if item is None:
                break
            for data in _encode(completion, item[0], include_usage=include_usage):
                yield data
    # The status is out: the reader of the text and the program must both see that this is no whole answer.
    except Exception as error:
        described = to_api_error(error)
        log.warning("stream failed", error=type(error).__name__, code=described.code, exc_info=True)
        yield completion.delta({"content": f"\n\n[Error: {described.message}]"})
        yield sse.event(described.body())
    finally:
        leave()
        await events.aclose()
    yield sse.DONE


def _encode(completion: Completion, event: Event, *, include_usage: bool) -> list[bytes]:
    if isinstance(event, Text):
        if not event.text and not completion.with_logprobs:
            return []
        logprobs = wire.logprobs(list(event.deltas)) if completion.with_logprobs and event.deltas else None
        return [completion.delta({"content": event.text}, logprobs=logprobs)]
    if not isinstance(event, End):
        return []
    delta: dict[str, Any] = {"annotations": list(event.annotations)} if event.annotations else {}
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": event.finish_reason}
    listing = wire.sources_json(event.sources, event.cited)
    chunks = [completion.chunk([choice], **({"sources": listing} if listing else {}))]
    if include_usage:
        chunks.append(
            completion.chunk([], usage=wire.usage(event.n_prompt_tokens, event.n_completion_tokens))
        )
    return chunks


def _source_headers(first: list[Event]) -> dict[str, str]:
    return _header(next((event.sources for event in first if isinstance(event, Retrieved)), ()))


def _header(sources: tuple[Source, ...]) -> dict[str, str]:
    """Name the sources in a header: LangChain drops every extra field of the body."""
    listing = [{"number": s.number, "path": s.passage.path, "page": s.passage.page} for s in sources]
    text = json.dumps(listing, separators=(",", ":"))
    return {"x-quarry-sources": text} if listing and len(text) <= _LONGEST_HEADER else {}
