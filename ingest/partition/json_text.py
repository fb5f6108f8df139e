"""json, jsonl: values as readable lines, each with its path."""

from __future__ import annotations

import json
from typing import IO, TYPE_CHECKING, Any

from ingest.errors import LimitExceeded, PartitionError
from ingest.partition.decoding import decode
from ingest.values import Element

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ingest.partition.limits import Limits


def read_json(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read JSON as lines `path: value`, one element per entry of the outermost object or list."""
    return _elements(_load(decode(file.read(limits.file_bytes)), limits), limits)


def read_json_lines(file: IO[bytes], limits: Limits) -> list[Element]:
    """Read one JSON value per line."""
    text = decode(file.read(limits.file_bytes))
    return _elements([_load(line, limits) for line in text.splitlines() if line.strip()], limits)


def _load(text: str, limits: Limits) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise LimitExceeded(f"nested too deeply; the limit is {limits.nesting} levels") from error
    except ValueError as error:
        raise PartitionError(f"not valid JSON: {error}") from error


def _elements(value: Any, limits: Limits) -> list[Element]:
    entries: list[tuple[str, Any]]
    if isinstance(value, dict):
        entries = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, list):
        entries = [(f"[{number}]", item) for number, item in enumerate(value)]
    else:
        entries = [("", value)]
    blocks = ("\n".join(_lines(item, path, limits, 1)) for path, item in entries)
    return [Element("NarrativeText", block) for block in blocks if block]


def _lines(value: Any, path: str, limits: Limits, depth: int) -> Iterator[str]:
    if depth > limits.nesting:
        raise LimitExceeded(f"nested too deeply; the limit is {limits.nesting} levels")
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _lines(item, f"{path}.{key}" if path else str(key), limits, depth + 1)
    elif isinstance(value, list):
        for number, item in enumerate(value):
            yield from _lines(item, f"{path}[{number}]", limits, depth + 1)
    else:
        shown = value if isinstance(value, str) else json.dumps(value)
        yield f"{path}: {shown}" if path else shown
