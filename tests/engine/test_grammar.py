"""Answers held to a form: by real models of any vocabulary, whatever they would rather write."""

import json
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from engine.chat_model import ChatModel, GenerationParams
from engine.engine import Engine
from engine.errors import GrammarError
from engine.grammar import Grammar, json_object_grammar, json_schema_grammar, regex_grammar

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "role": {"enum": ["driver", "cook"]},
        "tags": {"type": "array", "items": {"type": "string", "maxLength": 5}, "maxItems": 2},
    },
    "required": ["name", "age", "role", "tags"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def chat(starter_chat_gguf: Path) -> Iterator[ChatModel]:
    engine = Engine.open(chat_model=starter_chat_gguf, embedding_model=None, threads=2, cache_tokens=2048)
    assert engine.chat is not None
    yield engine.chat
    engine.close()


def write(chat: ChatModel, grammar: Grammar, question: str, **more: Any) -> tuple[str, str | None]:
    prompt = chat.prompt_tokens([{"role": "user", "content": question}])
    deltas = list(chat.generate(prompt, GenerationParams(grammar=grammar, **more)))
    return "".join(delta.text for delta in deltas), deltas[-1].finish_reason


@pytest.mark.parametrize("seed", [pytest.param(seed, id=str(seed)) for seed in range(6)])
def test_hot_samples_follow_the_schema(chat: ChatModel, seed: int) -> None:
    text, reason = write(
        chat, json_schema_grammar(PERSON), "Tell me a story.", temperature=2.0, seed=seed, max_tokens=200
    )
    jsonschema.validate(json.loads(text), PERSON)
    assert reason == "stop"


def test_object_begins_as_one(chat: ChatModel) -> None:
    text, _ = write(chat, json_object_grammar(), "Say hello.", temperature=0, max_tokens=24)
    assert text.startswith("{")


def test_pattern_is_matched_whole_and_ends_the_answer(chat: ChatModel) -> None:
    text, reason = write(chat, regex_grammar(r"(yes|no): [a-z]{3,9}"), "Is it cold?", max_tokens=40)
    assert re.fullmatch(r"(yes|no): [a-z]{3,9}", text)
    assert reason == "stop"


def test_characters_of_several_tokens_are_allowed(chat: ChatModel) -> None:
    text, _ = write(chat, json_schema_grammar({"enum": ["二十五天年假"]}), "How many?", max_tokens=60)
    assert json.loads(text) == "二十五天年假"


def test_others_in_the_batch_are_not_restricted(chat: ChatModel) -> None:
    prompt = chat.prompt_tokens([{"role": "user", "content": "Count to ten."}])
    alone = "".join(delta.text for delta in chat.generate(prompt, GenerationParams(20, temperature=0)))
    held = chat.generate(prompt, GenerationParams(100, grammar=json_schema_grammar(PERSON)))
    free = chat.generate(prompt, GenerationParams(20, temperature=0))
    assert "".join(delta.text for delta in free) == alone
    jsonschema.validate(json.loads("".join(delta.text for delta in held)), PERSON)


@pytest.mark.parametrize(
    ("schema", "named"),
    [
        pytest.param({"type": "strnig"}, "strnig", id="type"),
        pytest.param({"$ref": "#/$defs/nothing"}, "nothing", id="reference"),
        pytest.param({"type": "string", "pattern": "(("}, "pattern|regex|unclosed", id="pattern"),
        pytest.param({"enum": ["x" * (1 << 19)]}, "262144", id="too long"),
    ],
)
def test_schema_that_cannot_be_followed(schema: dict[str, Any], named: str) -> None:
    with pytest.raises(GrammarError, match=named):
        json_schema_grammar(schema)


def test_grammar_travels_between_processes() -> None:
    grammar = json_schema_grammar(PERSON)
    assert pickle.loads(pickle.dumps(grammar)) == grammar  # noqa: S301 - our own bytes
