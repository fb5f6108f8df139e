"""POST /v1/responses, read: what it asks for, and what of it is not supported."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictInt

from engine.chat_model import GenerationParams
from rag import wire
from rag.asking import Ask, Search
from rag.errors import InvalidRequest, UnsupportedParameter
from rag.filters import read_threshold
from rag.forms import Form, read_response_format
from rag.models import Target
from rag.ports import ChatModel
from rag.tools import Tools, read_tools

FIELDS: dict[str, tuple[Any, ...]] = {
    "access_programs": (None,),
    "background": (None, False),
    "background_options": (None,),
    "context_management": (None, []),
    "conversation": (None,),
    "image": (None,),
    "max_tool_calls": (None,),
    "moderation": (None,),
    "prompt": (None,),
    "service_tier": (None, "auto", "default"),
    "truncation": (None, "disabled"),
    **wire.CACHE_FIELDS,
}
_INCLUDED = ("file_search_call.results", "message.output_text.logprobs")
_TEXT_PARTS = ("input_text", "output_text", "text", "refusal", "summary_text")
_MOST_STORES = 32


class ResponseRequest(BaseModel):
    """POST /v1/responses. `sources_footer` and `answers` are our own."""

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    model: wire.String = Field(min_length=1, max_length=512)
    input: wire.String | list[dict[str, Any]]
    instructions: wire.String | None = None
    previous_response_id: wire.String | None = Field(None, max_length=200)
    store: StrictBool | None = True
    stream: StrictBool | None = False
    stream_options: wire.StreamOptions | None = None
    max_output_tokens: StrictInt | None = Field(None, ge=1, le=1 << 24)
    temperature: wire.Number | None = Field(None, ge=0, le=2)
    top_p: wire.Number | None = Field(None, gt=0, le=1)
    top_logprobs: StrictInt | None = Field(None, ge=0, le=20)
    tools: list[dict[str, Any]] | None = None
    tool_choice: wire.String | dict[str, Any] | None = None
    parallel_tool_calls: StrictBool | None = True
    text: dict[str, Any] | None = None
    reasoning: dict[str, Any] | None = None
    include: list[wire.String] | None = Field(None, max_length=32)
    metadata: dict[str, wire.String] | None = Field(None, max_length=16)
    sources_footer: StrictBool | None = None
    answers: Literal["strict", "mixed"] | None = None


@dataclass(frozen=True, slots=True)
class FileSearch:
    """The `file_search` tool of a request."""

    store_ids: tuple[str, ...]
    limit: int | None
    filters: Any
    least: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a request asks for, besides the conversation."""

    params: GenerationParams
    temperature: float | None
    form: Form | None
    tools: Tools | None
    file_search: FileSearch | None
    thinking: bool | None
    answers: Literal["strict", "mixed"] | None
    with_summary: bool
    with_results: bool
    with_logprobs: bool

    def ask(self, target: Target, messages: Sequence[Mapping[str, Any]], search: Search) -> Ask:
        """Join it with what is asked and of whom."""
        return Ask(
            target,
            messages,
            replace(self.params, temperature=self.temperature_for(target)),
            with_footer=False,
            form=self.form,
            tools=self.tools,
            thinking=self.thinking,
            answers=self.answers,
            search=search,
        )

    def temperature_for(self, target: Target) -> float:
        """Give the temperature; where the client does not say, it depends on what answers."""
        return target.usual_temperature if self.temperature is None else self.temperature


def read_request(body: ResponseRequest, *, chat: ChatModel | None, tenant: str) -> Wanted:
    """Check a request. Raises: InvalidRequest, UnsupportedParameter naming the parameter."""
    wire.refuse_fields(body, FIELDS)
    wire.check_stream_options(body.stream_options, is_stream=bool(body.stream))
    included = set(body.include or ())
    for name in included.difference(_INCLUDED):
        raise UnsupportedParameter(
            f"include {name[:60]!r} is not supported: {' and '.join(_INCLUDED)} are", param="include"
        )
    form = _form(body.text or {}, chat)
    tools, file_search = _tools(body, chat)
    reasoning = body.reasoning or {}
    effort, summary = reasoning.get("effort"), reasoning.get("summary")
    if effort is not None and not isinstance(effort, str):
        raise InvalidRequest("reasoning.effort must be a string", param="reasoning.effort")
    if summary not in (None, "auto", "concise", "detailed"):
        raise InvalidRequest("reasoning.summary must be auto, concise or detailed", param="reasoning.summary")
    with_logprobs = body.top_logprobs is not None or "message.output_text.logprobs" in included
    params = GenerationParams(
        max_tokens=body.max_output_tokens,
        top_p=1.0 if body.top_p is None else body.top_p,
        n_logprobs=(body.top_logprobs or 0) if with_logprobs else None,
        grammar=None if form is None else form.grammar,
        tenant=tenant,
    )
    return Wanted(
        params=params,
        temperature=body.temperature,
        form=form,
        tools=tools,
        file_search=file_search,
        answers=body.answers,
        thinking=wire.read_effort(effort, thinks=chat is not None and chat.thinks, param="reasoning.effort"),
        with_summary=summary is not None,
        with_results="file_search_call.results" in included,
        with_logprobs=with_logprobs,
    )


def read_input(given: str | list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Turn the items of a request into messages. Raises: InvalidRequest, UnsupportedParameter."""
    if isinstance(given, str):
        return [{"role": "user", "content": given}]
    messages: list[dict[str, Any]] = []
    for index, item in enumerate(given):
        param = f"input.{index}"
        kind = item.get("type") or ("message" if "role" in item else None)
        if kind == "message":
            messages.append(_message(item, param))
        elif kind == "function_call":
            _add_call(messages, item, param)
        elif kind == "function_call_output":
            call_id = _text(item, "call_id", param)
            content = _content(item.get("output"), f"{param}.output")
            messages.append({"role": "tool", "tool_call_id": call_id, "name": "", "content": content})
        elif kind not in ("file_search_call", "reasoning"):  # what we wrote ourselves; the answer follows it
            raise UnsupportedParameter(
                f"{param}: items of type {str(kind)[:40]!r} are not supported here", param=param
            )
    if not messages:
        raise InvalidRequest("input holds nothing to answer", param="input")
    return messages


def _message(item: Mapping[str, Any], param: str) -> dict[str, Any]:
    role = item.get("role")
    if role not in ("user", "assistant", "system", "developer"):
        raise InvalidRequest(f"{param}.role {str(role)[:40]!r} is unknown", param=f"{param}.role")
    content = _content(item.get("content"), f"{param}.content")
    return {"role": "system" if role == "developer" else role, "content": content}


def _content(content: object, param: str) -> str:
    if isinstance(content, str):
        return _encodable(content, param)
    if not isinstance(content, list):
        raise InvalidRequest(f"{param} must be a string or a list of parts", param=param)
    text = ""
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind not in _TEXT_PARTS:
            raise UnsupportedParameter(
                f"{param}: parts of type {str(kind)[:40]!r} are not supported here: only text is", param=param
            )
        text += _text(part, "refusal" if kind == "refusal" else "text", param)
    return text


def _add_call(messages: list[dict[str, Any]], item: Mapping[str, Any], param: str) -> None:
    """Append a call to the assistant's turn that it belongs to."""
    name, arguments = _text(item, "name", param), _text(item, "arguments", param)
    try:
        parsed = json.loads(arguments or "{}")
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"{param}.arguments is no JSON", param=f"{param}.arguments") from error
    call = {
        "id": _text(item, "call_id", param),
        "type": "function",
        "function": {"name": name, "arguments": parsed},
    }
    if not messages or messages[-1]["role"] != "assistant":
        messages.append({"role": "assistant", "content": ""})
    messages[-1].setdefault("tool_calls", []).append(call)


def _text(item: Mapping[str, Any], key: str, param: str) -> str:
    value = item.get(key)
    if not isinstance(value, str):
        raise InvalidRequest(f"{param}.{key} must be a string", param=f"{param}.{key}")
    return _encodable(value, f"{param}.{key}")


def _encodable(text: str, param: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"{param} holds half of a surrogate pair, which is no text", param=param
        ) from error
    return text


def _form(text: Mapping[str, Any], chat: ChatModel | None) -> Form | None:
    if text.get("verbosity") not in (None, "medium"):
        raise UnsupportedParameter("text.verbosity is not supported here", param="text.verbosity")
    given = text.get("format")
    if given is not None and not isinstance(given, Mapping):
        raise InvalidRequest("text.format must be an object", param="text.format")
    if given is not None and given.get("type") == "json_schema":
        # Here the schema lies one level higher than in chat completions.
        given = {"type": "json_schema", "json_schema": dict(given)}
    return read_response_format(given, chat=chat, param="text.format")


def _tools(body: ResponseRequest, chat: ChatModel | None) -> tuple[Tools | None, FileSearch | None]:
    functions, searches = [], []
    for index, tool in enumerate(body.tools or ()):
        if tool.get("type") == "file_search":
            searches.append(_file_search(tool, f"tools.{index}"))
        elif tool.get("type") == "function" and "function" not in tool:
            functions.append({"type": "function", "function": dict(tool)})
        else:
            functions.append(tool)
    if len(searches) > 1:
        raise InvalidRequest("tools holds file_search more than once", param="tools")
    search = searches[0] if searches else None
    choice: object = body.tool_choice
    if choice == "none":
        search = None
    elif isinstance(choice, dict) and choice.get("type") == "file_search":
        if search is None:
            raise InvalidRequest("tool_choice names file_search, which is not in tools", param="tool_choice")
        return None, search
    elif isinstance(choice, dict) and choice.get("type") == "function" and "function" not in choice:
        choice = {"type": "function", "function": {"name": choice.get("name")}}
    elif choice == "required" and search is not None and not functions:
        return None, search  # documents are always searched
    is_parallel = body.parallel_tool_calls is not False
    return read_tools(functions, choice, chat=chat, is_parallel=is_parallel), search


def _file_search(tool: Mapping[str, Any], param: str) -> FileSearch:
    ids = tool.get("vector_store_ids")
    if (
        not isinstance(ids, list)
        or not 1 <= len(ids) <= _MOST_STORES
        or not all(isinstance(i, str) for i in ids)
    ):
        raise InvalidRequest(
            f"{param}.vector_store_ids must name 1 to {_MOST_STORES} vector stores",
            param=f"{param}.vector_store_ids",
        )
    limit = tool.get("max_num_results")
    if limit is not None and (type(limit) is not int or not 1 <= limit <= 50):
        raise InvalidRequest(
            f"{param}.max_num_results must be a whole number from 1 to 50", param=f"{param}.max_num_results"
        )
    least = read_threshold(tool.get("ranking_options"), param=f"{param}.ranking_options")
    return FileSearch(tuple(ids), limit, tool.get("filters"), least)
