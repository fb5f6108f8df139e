"""POST /v1/chat/completions."""

import json
import math
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import structlog
from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from rag import sse, wire
from rag.admission import places_of
from rag.api import answering
from rag.asking import Ask
from rag.auth import Caller, caller_of
from rag.chat_request import read_chat
from rag.choices import Numbered
from rag.citations import Source
from rag.errors import error_body, to_api_error
from rag.events import Called, End, Event, Retrieved, Text, Thought
from rag.service import Service, linking_for, service_of, unless_gone

if TYPE_CHECKING:
    from engine.chat_model import Delta

log = structlog.get_logger("quarry.chat")
router = APIRouter()

_LONGEST_HEADER = 4000


@router.post("/chat/completions")
async def create_chat_completion(body: wire.ChatRequest, request: Request) -> Response:
    """Answer a conversation, streamed or whole."""
    service = service_of(request)
    n = min(body.n or 1, wire.MOST_CHOICES)
    places_of(request).take(n - 1)
    ask = await to_thread.run_sync(_read, body, service, caller_of(request))
    if ask.target.kind == "documents":
        ask = replace(ask, linking=linking_for(request, body.source_links))
    completion = Completion(
        model=body.model, with_logprobs=bool(body.logprobs), on_failure=service.metrics.failed
    )
    events = service.patient(answering.answers(ask, n, service))
    if not body.stream:
        return await unless_gone(request, _whole(completion, events, n))
    include_usage = bool(body.stream_options and body.stream_options.include_usage)
    first = await unless_gone(request, answering.first_events(events))
    stream = _stream(completion, events, first, include_usage=include_usage)
    return sse.EventStream(stream, headers=_source_headers(first))


@dataclass(slots=True)
class Completion:
    """What every chunk of an answer repeats."""

    model: str
    with_logprobs: bool
    on_failure: Callable[[str | None], None]
    id: str = field(default_factory=lambda: f"chatcmpl-{uuid.uuid4().hex}")
    created: int = field(default_factory=wire.now)

    _head: str = field(init=False)

    def __post_init__(self) -> None:
        head = {"id": self.id, "object": "chat.completion.chunk", "created": self.created}
        # Written once: a stream has thousands of chunks.
        self._head = "data: " + sse.encode({**head, "model": self.model}).removesuffix("}")

    def chunk(self, choices: list[dict[str, Any]], **extra: Any) -> bytes:
        """Encode a chunk of the stream."""
        rest = sse.encode({"choices": choices, **extra}).removeprefix("{")
        return f"{self._head},{rest}\n\n".encode()

    def text(self, text: str, *, index: int) -> bytes:
        """Encode a piece of text and nothing else, as most chunks are."""
        choice = f'"index":{index},"delta":{{"content":{sse.encode(text)}}}'
        return f'{self._head},"choices":[{{{choice},"logprobs":null,"finish_reason":null}}]}}\n\n'.encode()

    def delta(self, delta: dict[str, Any], *, index: int = 0, **extra: Any) -> bytes:
        """Encode a chunk that goes on with a choice."""
        return self.chunk(
            [{"index": index, "delta": delta, "logprobs": None, "finish_reason": None, **extra}]
        )


def _read(body: wire.ChatRequest, service: Service, caller: Caller) -> Ask:
    target = service.target(body.model, caller)
    footer = service.settings.sources_footer
    return read_chat(body, target, chat=service.parts.engine.chat, with_footer=footer, tenant=caller.tenant)


@dataclass(slots=True)
class _Choice:
    """One answer as it is collected."""

    text: str = ""
    thought: str = ""
    deltas: list["Delta"] = field(default_factory=list)
    calls: list[dict[str, Any]] = field(default_factory=list)
    end: End | None = None

    def take(self, event: Event) -> None:
        """Add what came."""
        if isinstance(event, Text):
            self.text += event.text
            self.deltas += event.deltas
        elif isinstance(event, Thought):
            self.thought += event.text
        elif isinstance(event, Called):
            self.calls = [call.as_json() for call in event.calls]
        elif isinstance(event, End):
            self.end = event

    def as_json(self, index: int, *, with_logprobs: bool) -> dict[str, Any]:
        """Give the choice as the body holds it."""
        assert self.end is not None  # noqa: S101 (an answer ends with it, or raises)
        content = self.text if self.text or not self.calls else None
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self.thought:
            message["reasoning_content"] = self.thought
        if self.calls:
            message["tool_calls"] = self.calls
        if self.end.annotations:
            message["annotations"] = list(self.end.annotations)
        if listing := wire.sources_json(self.end.sources, self.end.cited):
            message["sources"] = listing
        return {
            "index": index,
            "message": message,
            "logprobs": wire.logprobs(self.deltas) if with_logprobs else None,
            "finish_reason": self.end.finish_reason,
        }


async def _whole(completion: Completion, events: sse.Patient[Numbered], n: int) -> Response:
    """Collect the answers into one body."""
    choices = [_Choice() for _ in range(n)]
    sources: tuple[Source, ...] = ()
    async with aclosing(events):
        while come := await events.next(within=math.inf):
            for index, event in come:
                choices[index].take(event)
                if isinstance(event, Retrieved):
                    sources = event.sources
    listed = [choice.as_json(i, with_logprobs=completion.with_logprobs) for i, choice in enumerate(choices)]
    ends = [choice.end for choice in choices if choice.end is not None]
    body = {
        "id": completion.id,
        "object": "chat.completion",
        "created": completion.created,
        "model": completion.model,
        "choices": listed,
        "usage": _usage(ends),
        "sources": listed[0]["message"].get("sources", []),
    }
    return JSONResponse(body, headers=_header(sources))


async def _stream(
    completion: Completion,
    events: sse.Patient[Numbered],
    first: list[Numbered],
    *,
    include_usage: bool,
) -> AsyncGenerator[bytes, None]:
    """Encode the answer as it comes; empty deltas while it does not."""
    ends: dict[int, End] = {}
    started: set[int] = set()
    try:
        yield completion.delta({"role": "assistant", "content": ""})
        started.add(0)
        come = first
        while True:
            chunks = [chunk for numbered in come for chunk in _encode(completion, numbered, started, ends)]
            if chunks:
                yield b"".join(chunks)
            try:
                come = await events.next(within=answering.KEEP_ALIVE_S)
            except TimeoutError:
                come = []
                yield completion.delta({})
                continue
            if not come:
                break
        if include_usage:
            yield completion.chunk([], usage=_usage(list(ends.values())))
    # The status is out: the reader of the text and the program must both see that this is no whole answer.
    except Exception as error:
        described = to_api_error(error)
        completion.on_failure(described.code)
        log.warning("stream failed", error=type(error).__name__, code=described.code, exc_info=True)
        yield completion.delta({"content": f"\n\n[Error: {described.message}]"})
        yield sse.event(error_body(described))
    finally:
        await events.aclose()
    yield sse.DONE


def _encode(
    completion: Completion, numbered: Numbered, started: set[int], ends: dict[int, End]
) -> list[bytes]:
    """Encode an event of a choice; note which choices began and how they ended."""
    index, event = numbered
    chunks: list[bytes] = []
    if index not in started and not isinstance(event, Retrieved):
        started.add(index)
        chunks.append(completion.delta({"role": "assistant", "content": ""}, index=index))
    if isinstance(event, Text) and not completion.with_logprobs:
        if event.text:
            chunks.append(completion.text(event.text, index=index))
    elif isinstance(event, Text):
        logprobs = wire.logprobs(list(event.deltas)) if event.deltas else None
        chunks.append(completion.delta({"content": event.text}, index=index, logprobs=logprobs))
    elif isinstance(event, Thought):
        chunks.append(completion.delta({"reasoning_content": event.text}, index=index))
    elif isinstance(event, Called):
        chunks += _encode_calls(completion, index, event)
    elif isinstance(event, End):
        ends[index] = event
        delta: dict[str, Any] = {"annotations": list(event.annotations)} if event.annotations else {}
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": event.finish_reason}
        listing = wire.sources_json(event.sources, event.cited)
        chunks.append(completion.chunk([choice], **({"sources": listing} if listing else {})))
    return chunks


def _usage(ends: list[End]) -> dict[str, Any]:
    """Count all answers of a request; they share the prompt."""
    return wire.usage(
        ends[0].n_prompt_tokens,
        sum(end.n_completion_tokens for end in ends),
        n_thought=sum(end.n_thought_tokens for end in ends),
        # The first of them read what the others found.
        n_cached=min(end.n_cached_tokens for end in ends),
    )


def _encode_calls(completion: Completion, index: int, event: Called) -> list[bytes]:
    """Encode calls one to a chunk, its id only in the first, as clients that read one at a time want it."""
    parts: list[dict[str, Any]] = []
    for place, call in enumerate(event.calls):
        opening = {**call.as_json(), "function": {"name": call.name, "arguments": ""}}
        parts += [{"index": place, **opening}, {"index": place, "function": {"arguments": call.arguments}}]
    return [completion.delta({"tool_calls": [part]}, index=index) for part in parts]


def _source_headers(first: list[Numbered]) -> dict[str, str]:
    return _header(next((event.sources for _, event in first if isinstance(event, Retrieved)), ()))


def _header(sources: tuple[Source, ...]) -> dict[str, str]:
    """Name the sources in a header: LangChain drops every extra field of the body."""
    listing = [{"number": s.number, "path": s.passage.path, "page": s.passage.page} for s in sources]
    text = json.dumps(listing, separators=(",", ":"))
    return {"x-quarry-sources": text} if listing and len(text) <= _LONGEST_HEADER else {}
