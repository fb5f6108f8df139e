"""Tools that a client offers: how the model hears of them, and how its calls are recognised.

A model whose chat template knows tools is told by it; others by plain words. A call that must come is drawn
by a grammar; one that may come is recognised by its form.
"""

import json
import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.grammar import Grammar
from rag.errors import InvalidRequest, UnsupportedParameter
from rag.forms import compile_schema, instruct
from rag.language import is_chinese
from rag.ports import ChatModel, Message

_TOLD = (
    "You can call these tools:\n{tools}\n"
    'To call one, answer with nothing but {{"name": "<tool>", "arguments": {{…}}}}. '
    "If no tool is needed, answer in plain words."
)
# A small model that sees its own call and a result repeats the call, unless told what the result is for.
_AFTER_RESULT = {
    "en": (
        "Answer my question with it, in words.",
        "If this is enough, answer my question with it, in words.",
    ),
    "zh": ("请据此用文字回答我的问题。", "如果这已经足够，请据此用文字回答我的问题。"),
}
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}\Z")
_MOST_TOOLS = 128
_OPENINGS = ("{", "[", "<tool_call>", "```")
_TAGGED = re.compile(r"<tool_call>\s*(.*?)\s*(?:</tool_call>|\Z)", re.DOTALL)
_FENCED = re.compile(r"```(?:json)?\s*(.*?)\s*```\Z", re.DOTALL)


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call; `arguments` is JSON."""

    id: str
    name: str
    arguments: str

    def as_json(self) -> dict[str, Any]:
        """Give the call as a message holds it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


@dataclass(frozen=True, slots=True)
class Tools:
    """The tools of a request. `grammar`: of the call that must come, None where it may.

    `is_named`: the client chose the tool itself, so the end of the call is an ordinary end.
    """

    specs: tuple[dict[str, Any], ...]
    grammar: Grammar | None
    is_named: bool
    is_parallel: bool

    def tell(self, messages: Sequence[Message]) -> list[dict[str, Any]]:
        """Put the tools in words before the conversation, for templates that know none."""
        listing = "\n".join(json.dumps(spec["function"], ensure_ascii=False) for spec in self.specs)
        return instruct(flatten(messages, may_call=True), _TOLD.format(tools=listing))

    def calls_in(self, text: str) -> tuple[ToolCall, ...]:
        """Recognise the calls that a whole answer consists of; none where it is anything else."""
        text = text.strip()
        if fenced := _FENCED.match(text):
            text = fenced[1]
        pieces = _TAGGED.findall(text) if text.startswith("<tool_call>") else [text]
        found: list[ToolCall] = []
        for piece in pieces:
            try:
                value = json.loads(piece)
            except (ValueError, RecursionError):
                return ()
            for item in value if isinstance(value, list) else [value]:
                call = self._call(item)
                if call is None:
                    return ()
                found.append(call)
        return tuple(found if self.is_parallel else found[:1])

    def _call(self, item: object) -> ToolCall | None:
        if not isinstance(item, dict):
            return None
        arguments = item.get("arguments", item.get("parameters"))
        if item.get("name") not in {spec["function"]["name"] for spec in self.specs}:
            return None
        if not isinstance(arguments, dict):
            return None
        written = json.dumps(arguments, ensure_ascii=False)
        return ToolCall(f"call_{uuid.uuid4().hex[:24]}", item["name"], written)


def may_be_call(text: str) -> bool:
    """Tell whether an answer that begins so may still turn out to be a call."""
    begun = text.lstrip()
    return any(begun.startswith(opening) or opening.startswith(begun) for opening in _OPENINGS)


def flatten(messages: Sequence[Message], *, may_call: bool = False) -> list[dict[str, Any]]:
    """Write calls and results as text, for templates that know neither."""
    flat: list[dict[str, Any]] = []
    names: dict[str, str] = {}
    for message in messages:
        content = str(message.get("content") or "")
        if message["role"] == "tool":
            name = names.get(message.get("tool_call_id", ""), message.get("name") or "the tool")
            flat.append({"role": "user", "content": f"Result of {name}:\n{content}"})
            continue
        calls = [call["function"] for call in message.get("tool_calls") or ()]
        names |= {call["id"]: call["function"]["name"] for call in message.get("tool_calls") or ()}
        lines = [json.dumps(call, ensure_ascii=False) for call in calls]
        flat.append(
            {"role": message["role"], "content": "\n".join(part for part in (content, *lines) if part)}
        )
    if messages and messages[-1]["role"] == "tool":
        asked = next((str(m.get("content") or "") for m in reversed(messages) if m["role"] == "user"), "")
        flat[-1]["content"] += "\n\n" + _AFTER_RESULT["zh" if is_chinese(asked) else "en"][may_call]
    return flat


def read_tools(
    tools: Sequence[Mapping[str, Any]] | None, choice: object, *, chat: ChatModel | None, is_parallel: bool
) -> Tools | None:
    """Read `tools` and `tool_choice`; None where no tool may be called.

    Raises: InvalidRequest, UnsupportedParameter (a kind of tool that is not a function).
    """
    specs = tuple(_spec(tool, index) for index, tool in enumerate(tools or ()))
    if len(specs) > _MOST_TOOLS:
        raise InvalidRequest(f"tools has {len(specs)} entries; at most {_MOST_TOOLS} are read", param="tools")
    if choice == "none" or (not specs and choice in (None, "auto")):
        return None
    if not specs:
        raise InvalidRequest("tool_choice needs tools", param="tool_choice")
    if choice in (None, "auto"):
        return Tools(specs, None, is_named=False, is_parallel=is_parallel)
    callable_specs = specs
    if choice != "required":
        name = _chosen_name(choice)
        callable_specs = tuple(spec for spec in specs if spec["function"]["name"] == name)
        if not callable_specs:
            raise InvalidRequest(f"tool_choice names {name!r}, which is not among tools", param="tool_choice")
    grammar = compile_schema(_call_schema(callable_specs), chat=chat, param="tools")
    return Tools(specs, grammar, is_named=choice != "required", is_parallel=is_parallel)


def _spec(tool: Mapping[str, Any], index: int) -> dict[str, Any]:
    param = f"tools.{index}"
    if tool.get("type") != "function":
        raise UnsupportedParameter(
            f"{param}: type {str(tool.get('type'))[:40]!r} is not supported: only function is", param=param
        )
    function = tool.get("function")
    if not isinstance(function, dict) or not isinstance(function.get("name"), str):
        raise InvalidRequest(f"{param}: function.name is missing", param=param)
    if not _NAME.match(function["name"]):
        raise InvalidRequest(
            f"{param}: function.name {function['name'][:60]!r} needs 1 to 128 letters, digits, _ . -",
            param=param,
        )
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    if not isinstance(parameters, dict):
        raise InvalidRequest(f"{param}: function.parameters must be a JSON schema", param=param)
    described = {"name": function["name"], "description": str(function.get("description") or "")}
    return {"type": "function", "function": {**described, "parameters": parameters}}


def _chosen_name(choice: object) -> str:
    function = (
        choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    )
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str):
        raise UnsupportedParameter(
            f"tool_choice {str(choice)[:60]!r} is not supported: none, auto, required and a function are",
            param="tool_choice",
        )
    return name


def _call_schema(specs: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Describe a call of one of the tools; their own references move with them."""
    options, definitions = [], {}
    for index, spec in enumerate(specs):
        key = f"tool_{index}"
        definitions[key] = _moved(spec["function"]["parameters"], f"#/$defs/{key}")
        options.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": spec["function"]["name"]},
                    "arguments": {"$ref": f"#/$defs/{key}"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"anyOf": options, "$defs": definitions}


def _moved(value: Any, place: str) -> Any:
    if isinstance(value, list):
        return [_moved(item, place) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: place + item[1:]
        if key == "$ref" and isinstance(item, str) and item.startswith("#")
        else _moved(item, place)
        for key, item in value.items()
    }
