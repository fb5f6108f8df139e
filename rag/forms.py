"""The form that a client wants its answer in: `response_format`, as a grammar and as words for the model."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from engine.errors import GrammarError
from engine.grammar import Grammar, json_object_grammar, json_schema_grammar
from rag.errors import InvalidRequest, UnsupportedParameter
from rag.focus import is_small
from rag.ports import ChatModel, Message

_LONGEST_STRING_OF_SMALL = 200
_BOUNDS = frozenset({"maxLength", "pattern", "format", "enum", "const"})
_ANY_OBJECT = "Answer with one JSON object and nothing else."
_SCHEMA = "Answer with JSON that follows this JSON schema, and with nothing else:\n{schema}"


@dataclass(frozen=True, slots=True)
class Form:
    """What holds the answer to its form, and what tells the model about it."""

    grammar: Grammar
    instruction: str


def longest_string(chat: ChatModel | None) -> int | None:
    """Say how long a model may make strings whose schema sets no limit; None: as long as it likes."""
    return _LONGEST_STRING_OF_SMALL if chat is not None and is_small(chat) else None


def read_response_format(
    given: Mapping[str, Any] | None, *, chat: ChatModel | None, param: str = "response_format"
) -> Form | None:
    """Read `response_format`; None for plain text. Raises: InvalidRequest, UnsupportedParameter."""
    kind = given.get("type") if given else "text"
    if given is None or kind == "text":
        return None
    if kind == "json_object":
        return Form(json_object_grammar(), _ANY_OBJECT)
    if kind != "json_schema":
        raise UnsupportedParameter(
            f"{param} {str(kind)[:60]!r} is not supported: text, json_object and json_schema are",
            param=param,
        )
    described = given.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    return read_schema(schema, chat=chat, param=f"{param}.json_schema.schema")


def read_schema(schema: object, *, chat: ChatModel | None, param: str) -> Form:
    """Turn a JSON schema of a request into a form. Raises: InvalidRequest naming what is wrong in it."""
    if not isinstance(schema, dict):
        raise InvalidRequest(f"{param}: a JSON schema is missing", param=param)
    grammar = compile_schema(schema, chat=chat, param=param)
    return Form(grammar, _SCHEMA.format(schema=json.dumps(schema, ensure_ascii=False)))


def compile_schema(schema: Mapping[str, Any], *, chat: ChatModel | None, param: str) -> Grammar:
    """Compile a schema. Raises: InvalidRequest."""
    try:
        open_parts = '"allOf"' in json.dumps(schema)
        closed = schema if open_parts else _closed(schema)
        longest = longest_string(chat)
        return json_schema_grammar(closed if longest is None else _bounded(closed, longest))
    except (GrammarError, RecursionError) as error:
        raise InvalidRequest(f"{param}: {error}", code="invalid_json_schema", param=param) from error


def _closed(schema: Any) -> Any:
    """Allow no properties beside the named ones where nothing is said: small models invent them endlessly.

    Not where schemas are combined by allOf, since each part must let the others' properties through.
    """
    if isinstance(schema, list):
        return [_closed(item) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    closed = {key: _closed(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object":
        closed.setdefault("additionalProperties", False)
    return closed


def _bounded(schema: Any, longest: int) -> Any:
    """Bound the strings that nothing else bounds: the smallest models find no end of them."""
    if isinstance(schema, list):
        return [_bounded(item, longest) for item in schema]
    if not isinstance(schema, Mapping):
        return schema
    bounded = {key: _bounded(value, longest) for key, value in schema.items()}
    if schema.get("type") == "string" and not _BOUNDS & schema.keys():
        bounded["maxLength"] = longest
    return bounded


def instruct(messages: Sequence[Message], instruction: str) -> list[dict[str, Any]]:
    """Put an instruction into the system message, which comes first."""
    told = [dict(message) for message in messages]
    if told and told[0]["role"] == "system":
        told[0]["content"] = f"{told[0]['content']}\n\n{instruction}"
        return told
    return [{"role": "system", "content": instruction}, *told]
