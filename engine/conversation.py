"""Conversations as narrower templates take them: no system message, users and assistants in turns."""

from collections.abc import Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
_PLAIN_KEYS = {"role", "content"}


def fold_system(messages: Sequence[Message]) -> list[Message]:
    """Put what system messages say before the first question, for models that know no such role."""
    rules = [str(message["content"]) for message in messages if message.get("role") == "system"]
    others = [message for message in messages if message.get("role") != "system"]
    first = next((i for i, message in enumerate(others) if message.get("role") == "user"), None)
    if not rules:
        return others
    if first is None:
        return [{"role": "user", "content": "\n\n".join(rules)}, *others]
    question = others[first]
    content = "\n\n".join([*rules, str(question["content"])])
    return [*others[:first], {**question, "content": content}, *others[first + 1 :]]


def alternate(messages: Sequence[Message]) -> list[Message]:
    """Join neighbours of one role, for templates that refuse two of a kind; calls of tools stay apart."""
    joined: list[Message] = []
    for message in messages:
        last = joined[-1] if joined else {}
        is_plain = message.keys() <= _PLAIN_KEYS and last.keys() == _PLAIN_KEYS
        if is_plain and message.get("role") == last["role"]:
            joined[-1] = {**last, "content": f"{last['content']}\n\n{message['content']}"}
        else:
            joined.append(message)
    return joined
