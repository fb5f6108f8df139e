"""/v1/responses."""

import math
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

import structlog
from anyio import to_thread
from fastapi import APIRouter, Query, Request
from starlette.responses import JSONResponse, Response

from rag import sse, wire
from rag.api import answering
from rag.api.paging import Paging, page_of
from rag.asking import Ask, Search
from rag.auth import Caller, caller_of
from rag.choices import Numbered
from rag.errors import InvalidRequest, UnsupportedParameter, to_api_error
from rag.models import Target
from rag.responses.request import FileSearch, ResponseRequest, Wanted, read_input, read_request
from rag.responses.writer import ResponseWriter, Shown, new_id
from rag.service import Service, service_of, unless_gone
from rag.stores import no_store

log = structlog.get_logger("quarry.responses")
router = APIRouter()
Json = dict[str, Any]


@router.post("/responses")
async def create_response(body: ResponseRequest, request: Request) -> Response:
    """Answer, streamed or whole."""
    service, caller = service_of(request), caller_of(request)
    ask, turn = await to_thread.run_sync(_read, body, service, caller)
    events = service.patient(answering.answers(ask, 1, service))
    if not body.stream:
        return JSONResponse(await unless_gone(request, _whole(turn, events, service)))
    first = await unless_gone(request, answering.first_events(events))
    return sse.EventStream(_stream(turn, events, first, service), headers={})


@router.post("/responses/input_tokens")
async def count_input_tokens(body: ResponseRequest, request: Request) -> Json:
    """Count what the model would read of a request, without passages of documents."""
    service, caller = service_of(request), caller_of(request)
    chat = service.chat()
    ask, _ = await to_thread.run_sync(_read, body, service, caller)
    return {
        "object": "response.input_tokens",
        "input_tokens": len(await to_thread.run_sync(chat.prompt_tokens, ask.messages)),
    }


@router.get("/responses/{response_id}")
async def retrieve_response(response_id: str, request: Request, stream: bool = False) -> Json:
    """Give a kept response again."""
    if stream:
        raise UnsupportedParameter("stream is not supported here: the response is complete", param="stream")
    return service_of(request).responses.find(response_id, tenant=caller_of(request).tenant).response


@router.delete("/responses/{response_id}")
async def delete_response(response_id: str, request: Request) -> Json:
    """Forget a response."""
    service_of(request).responses.delete(response_id, tenant=caller_of(request).tenant)
    return {"id": response_id, "object": "response", "deleted": True}


@router.post("/responses/{response_id}/cancel")
async def cancel_response(response_id: str, request: Request) -> Json:
    """Say that there is nothing to cancel: closing the connection ends a response."""
    service_of(request).responses.find(response_id, tenant=caller_of(request).tenant)
    raise InvalidRequest("only a background response can be cancelled, and none runs in the background here")


@router.get("/responses/{response_id}/input_items")
async def list_input_items(response_id: str, request: Request, paging: Annotated[Paging, Query()]) -> Json:
    """List what a kept response was asked."""
    kept = service_of(request).responses.find(response_id, tenant=caller_of(request).tenant)
    return page_of(kept.input_items, paging)


class _Turn:
    """A request on its way to its answer."""

    def __init__(
        self, body: ResponseRequest, wanted: Wanted, target: Target, caller: Caller, service: Service
    ) -> None:
        self._body = body
        self._caller = caller
        self.messages: list[Json] = []
        self.writer = ResponseWriter(
            _head(body, wanted, target),
            Shown(
                file_of=service.stores.file_of,
                with_search=wanted.file_search is not None,
                with_results=wanted.with_results,
                with_summary=wanted.with_summary,
                with_logprobs=wanted.with_logprobs,
            ),
        )

    def keep(self, service: Service) -> None:
        """Let the client come back to a response that it has read to its end."""
        response = self.writer.response
        if response["store"] and response["status"] in ("completed", "incomplete"):
            service.responses.keep(
                response,
                tenant=self._caller.tenant,
                input_items=_items(self._body),
                messages=[*self.messages, *_said(response)],
            )


def _read(body: ResponseRequest, service: Service, caller: Caller) -> tuple[Ask, _Turn]:
    chat = service.parts.engine.chat
    wanted = read_request(body, chat=chat, tenant=caller.tenant)
    target, search = service.target(body.model, caller), Search()
    if wanted.file_search is not None:
        target, search = _searched(wanted.file_search, target, service, caller)
    turn = _Turn(body, wanted, target, caller, service)
    if body.previous_response_id is not None:
        turn.messages += service.responses.previous(body.previous_response_id, tenant=caller.tenant)
    turn.messages += read_input(_resolved(body.input, service, caller))
    told = [{"role": "system", "content": body.instructions}] if body.instructions else []
    ask = wanted.ask(target, [*told, *turn.messages], search)
    return replace(ask, with_footer=bool(body.sources_footer)), turn


def _searched(tool: FileSearch, target: Target, service: Service, caller: Caller) -> tuple[Target, Search]:
    """Turn the tool into a search of collections. Raises: NotFound, InvalidRequest."""
    folders = set()
    for store_id in tool.store_ids:
        store = service.stores.store(store_id)
        if not caller.sees(store.folder):
            raise no_store(store_id)
        folders.add(store.folder)
    asked = replace(target, kind="documents", collections=frozenset(folders))
    accepts = service.stores.accepting(tool.filters)
    return asked, Search(limit=tool.limit, accepts=accepts, least_similarity=tool.least)


def _resolved(given: str | list[Json], service: Service, caller: Caller) -> str | list[Json]:
    """Put kept items in the place of references to them."""
    if isinstance(given, str):
        return given
    find = partial(service.responses.item, tenant=caller.tenant)
    return [find(str(item.get("id"))) if item.get("type") == "item_reference" else item for item in given]


async def _whole(turn: _Turn, events: sse.Patient[Numbered], service: Service) -> Json:
    writer = turn.writer
    async with aclosing(events):
        while come := await events.next(within=math.inf):
            for _, part in come:
                for _ in writer.take(part):
                    pass  # nobody reads along
    turn.keep(service)
    return writer.response


async def _stream(
    turn: _Turn,
    events: sse.Patient[Numbered],
    first: list[Numbered],
    service: Service,
) -> AsyncGenerator[bytes, None]:
    """Encode the response as it comes."""
    writer = turn.writer
    try:
        for event in writer.begin():
            yield sse.named_event(event)
        come = first
        while True:
            written = [sse.named_event(event) for _, part in come for event in writer.take(part)]
            if written:
                yield b"".join(written)
            try:
                come = await events.next(within=answering.KEEP_ALIVE_S)
            except TimeoutError:
                come = []
                yield sse.named_event(writer.still_working())
                continue
            if not come:
                break
        turn.keep(service)
    # The status is out: only an event can tell that this is no whole answer.
    except Exception as error:
        described = to_api_error(error)
        service.metrics.failed(described.code)
        log.warning("stream failed", error=type(error).__name__, code=described.code, exc_info=True)
        for event in writer.fail(described.message):
            yield sse.named_event(event)
    finally:
        await events.aclose()


def _head(body: ResponseRequest, wanted: Wanted, target: Target) -> Json:
    """Give a response without its output; everything is said as it is used."""
    text, reasoning = body.text or {}, body.reasoning or {}
    return {
        "id": new_id("resp"),
        "object": "response",
        "created_at": wire.now(),
        "status": "in_progress",
        "background": False,
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "instructions": body.instructions,
        "max_output_tokens": body.max_output_tokens,
        "max_tool_calls": None,
        "metadata": dict(body.metadata or {}),
        "model": body.model,
        "output": [],
        "parallel_tool_calls": body.parallel_tool_calls is not False,
        "previous_response_id": body.previous_response_id,
        "reasoning": {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")},
        "service_tier": "default",
        "store": body.store is not False,
        "temperature": wanted.temperature_for(target),
        "text": {"format": text.get("format") or {"type": "text"}, "verbosity": "medium"},
        "tool_choice": body.tool_choice or "auto",
        "tools": [_tool(tool) for tool in body.tools or ()],
        "top_logprobs": body.top_logprobs or 0,
        "top_p": 1.0 if body.top_p is None else body.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": (body.model_extra or {}).get("user"),
    }


def _tool(tool: Json) -> Json:
    """Say a tool back as OpenAI does, with what was left out."""
    if tool.get("type") != "function":
        return tool
    return {"strict": None, "parameters": None, "description": None, **tool.get("function", {}), **tool}


def _items(body: ResponseRequest) -> list[Json]:
    """Give the input as items, each with an id."""
    if isinstance(body.input, str):
        parts = [{"type": "input_text", "text": body.input}]
        return [
            {
                "id": new_id("msg"),
                "type": "message",
                "role": "user",
                "status": "completed",
                "content": parts,
            }
        ]
    items = []
    for item in body.input:
        kind = item.get("type") or "message"
        content = item.get("content")
        if kind == "message" and isinstance(content, str):
            part = "output_text" if item.get("role") == "assistant" else "input_text"
            item = {**item, "content": [{"type": part, "text": content}]}  # noqa: PLW2901
        items.append({"id": new_id("item"), "status": "completed", **item, "type": kind})
    return items


def _said(response: Json) -> list[Json]:
    """Give the answer as messages that a later request goes on with."""
    message: Json = {"role": "assistant", "content": ""}
    for item in response["output"]:
        if item["type"] == "message":
            message["content"] += "".join(part["text"] for part in item["content"])
    calls = [item for item in response["output"] if item["type"] == "function_call"]
    return [message] if not calls else read_input([{"type": "message", **message}, *calls])
