"""POST /v1/completions, /v1/tokenize and /v1/detokenize: the chat model without conversation or documents."""

import math
import uuid
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog
from anyio import to_thread
from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from engine.chat_model import Delta
from engine.errors import ContextTooLong
from rag import sse, wire
from rag.admission import places_of
from rag.api import answering
from rag.auth import Caller, caller_of
from rag.choices import Numbered, side_by_side, with_seed
from rag.errors import InvalidRequest, UnsupportedParameter, error_body, to_api_error
from rag.events import End, Event, Text
from rag.generating import generate
from rag.service import Service, service_of, unless_gone

log = structlog.get_logger("quarry.completions")
router = APIRouter()
_USUAL_TOKENS = 16


@router.post("/completions")
async def create_completion(body: wire.CompletionRequest, request: Request) -> Response:
    """Continue texts, streamed or whole."""
    service = service_of(request)
    wire.check_stream_options(body.stream_options, is_stream=bool(body.stream))
    n_prompts = len(body.prompt) if isinstance(body.prompt, list) and not _is_ids(body.prompt) else 1
    places_of(request).take(min(n_prompts * (body.n or 1), wire.MOST_CHOICES) - 1)
    wanted = await to_thread.run_sync(_read, body, service, caller_of(request))
    events = service.patient(side_by_side(wanted.starts))
    head = {
        "id": f"cmpl-{uuid.uuid4().hex}",
        "object": "text_completion",
        "created": wire.now(),
        "model": body.model,
    }
    if body.stream:
        return sse.EventStream(_stream(head, events, body, wanted, service), headers={})
    return await unless_gone(request, _whole(head, events, body, wanted))


@router.post("/tokenize")
async def tokenize(body: wire.TokenizeRequest, request: Request) -> dict[str, Any]:
    """Cut a text, or a conversation as the model reads it, into the chat model's token ids."""
    chat = service_of(request).chat()
    if (body.prompt is None) == (body.messages is None):
        raise InvalidRequest("send either prompt or messages", param="prompt")
    if body.prompt is not None:
        tokens = await to_thread.run_sync(partial(chat.tokenize, body.prompt, special=False))
    else:
        tokens = await to_thread.run_sync(chat.prompt_tokens, wire.plain_messages(body))
    if not isinstance(tokens, list):
        raise UnsupportedParameter(f"{chat.name} runs elsewhere, and its vocabulary is not known here")
    return {"count": len(tokens), "max_model_len": chat.context_length, "tokens": tokens}


@router.post("/detokenize")
async def detokenize(body: wire.DetokenizeRequest, request: Request) -> dict[str, Any]:
    """Join token ids of the chat model to text."""
    chat = service_of(request).chat()
    try:
        return {"prompt": await to_thread.run_sync(chat.detokenize, body.tokens)}
    except IndexError as error:
        raise InvalidRequest(f"tokens: {error}", param="tokens") from error


@dataclass(frozen=True, slots=True)
class _Wanted:
    """How each answer starts, the words that it begins with, and the tokens of the prompts."""

    starts: list[Callable[[], AsyncGenerator[Event, None]]]
    echoes: list[str]
    n_prompt_tokens: int


def _read(body: wire.CompletionRequest, service: Service, caller: Caller) -> _Wanted:
    """Check the request. Raises: InvalidRequest, UnsupportedParameter, ContextTooLong."""
    for name, given in (("suffix", body.suffix), ("best_of", (body.best_of or 1) > 1)):
        if given:
            raise UnsupportedParameter(f"{name} is not supported here", param=name)
    if body.echo and body.logprobs is not None:
        raise UnsupportedParameter(
            "echo is not supported with logprobs: a prompt has none here", param="echo"
        )
    chat = service.chat()
    target = service.target(body.model, caller)
    if target.kind != "chat":
        raise InvalidRequest(
            f"{body.model} answers from documents, over /v1/chat/completions; {chat.name} continues texts",
            param="model",
        )
    items = _items(body)
    prompts = [chat.tokenize(item, special=False) if isinstance(item, str) else item for item in items]
    if not prompts or not all(prompts):
        raise InvalidRequest("prompt: each needs at least one token", param="prompt")
    n_answers = len(prompts) * (body.n or 1)
    if n_answers > wire.MOST_CHOICES:
        raise UnsupportedParameter(
            f"{n_answers} answers at once are not supported: at most {wire.MOST_CHOICES} are", param="n"
        )
    params = wire.sampling(
        body,
        temperature=1.0,
        max_tokens=body.max_tokens or _USUAL_TOKENS,
        n_logprobs=body.logprobs,
        tenant=caller.tenant,
    )
    starts: list[Callable[[], AsyncGenerator[Event, None]]] = []
    for prompt in prompts:
        left = chat.context_length - len(prompt)
        if left < 1:
            raise ContextTooLong(
                f"the prompt has {len(prompt)} tokens; {chat.name} reads at most {chat.context_length}"
            )
        most = replace(params, max_tokens=min(params.max_tokens or left, left))
        starts += [
            partial(generate, chat, prompt, with_seed(most, i), with_thoughts=False)
            for i in range(body.n or 1)
        ]
    texts = [item if isinstance(item, str) else chat.detokenize(item) for item in items if body.echo]
    echoes = [text for text in texts or [""] * len(items) for _ in range(body.n or 1)]
    return _Wanted(starts, echoes, sum(map(len, prompts)))


def _items(body: wire.CompletionRequest) -> list[str | list[int]]:
    """List the prompts: texts, or token ids."""
    given = body.prompt
    if isinstance(given, str):
        return [given]
    if _is_ids(given):
        return [[token for token in given if isinstance(token, int)]]
    return [item for item in given if not isinstance(item, int)]


def _is_ids(prompt: list[str] | list[int] | list[list[int]]) -> bool:
    return bool(prompt) and isinstance(prompt[0], int)


async def _whole(
    head: dict[str, Any], events: sse.Patient[Numbered], body: wire.CompletionRequest, wanted: _Wanted
) -> Response:
    texts = list(wanted.echoes)
    n = len(texts)
    deltas: list[list[Delta]] = [[] for _ in range(n)]
    ends: dict[int, End] = {}
    async with aclosing(events):
        while come := await events.next(within=math.inf):
            for index, event in come:
                if isinstance(event, Text):
                    texts[index] += event.text
                    deltas[index] += event.deltas
                elif isinstance(event, End):
                    ends[index] = event
    choices = [_choice(i, texts[i], deltas[i], ends[i].finish_reason) for i in range(n)]
    return JSONResponse({**head, "choices": choices, "usage": _usage(ends, body, wanted.n_prompt_tokens)})


def _usage(ends: dict[int, End], body: wire.CompletionRequest, n_prompt_tokens: int) -> dict[str, Any]:
    """Count all answers; those of one prompt share it: the first of them read what the others found."""
    n_cached: dict[int, int] = {}
    for index, end in ends.items():
        prompt = index // (body.n or 1)
        n_cached[prompt] = min(end.n_cached_tokens, n_cached.get(prompt, end.n_cached_tokens))
    n_written = sum(end.n_completion_tokens for end in ends.values())
    return wire.usage(n_prompt_tokens, n_written, n_cached=sum(n_cached.values()))


async def _stream(
    head: dict[str, Any],
    events: sse.Patient[Numbered],
    body: wire.CompletionRequest,
    wanted: _Wanted,
    service: Service,
) -> AsyncGenerator[bytes, None]:
    ends: dict[int, End] = {}
    try:
        for index, text in enumerate(wanted.echoes):
            if text:
                yield sse.event({**head, "choices": [_choice(index, text, [], None)]})
        while True:
            try:
                come = await events.next(within=answering.KEEP_ALIVE_S)
            except TimeoutError:
                yield sse.event({**head, "choices": [_choice(0, "", [], None)]})
                continue
            if not come:
                break
            choices = []
            for index, event in come:
                if isinstance(event, Text):
                    choices.append(_choice(index, event.text, event.deltas, None))
                elif isinstance(event, End):
                    ends[index] = event
                    choices.append(_choice(index, "", [], event.finish_reason))
            if choices:
                yield b"".join(sse.event({**head, "choices": [choice]}) for choice in choices)
        if body.stream_options and body.stream_options.include_usage:
            usage = _usage(ends, body, wanted.n_prompt_tokens)
            yield sse.event({**head, "choices": [], "usage": usage})
    # The status is out: only an error event can tell that this is no whole answer.
    except Exception as error:
        described = to_api_error(error)
        service.metrics.failed(described.code)
        log.warning("stream failed", error=type(error).__name__, code=described.code, exc_info=True)
        yield sse.event(error_body(described))
    finally:
        await events.aclose()
    yield sse.DONE


def _choice(index: int, text: str, deltas: Sequence[Delta], reason: str | None) -> dict[str, Any]:
    return {"index": index, "text": text, "logprobs": _logprobs(deltas), "finish_reason": reason}


def _logprobs(deltas: Sequence[Delta]) -> dict[str, Any] | None:
    """Give the logprobs as this older route has them; None where none were asked for."""
    items = [item for delta in deltas for item in delta.logprobs]
    if not items:
        return None
    lengths = [len(item.token) for item in items]
    return {
        "tokens": [item.token for item in items],
        "token_logprobs": [item.logprob for item in items],
        "top_logprobs": [{token: value for token, _, value in item.top} for item in items],
        "text_offset": [sum(lengths[:place]) for place in range(len(items))],
    }
