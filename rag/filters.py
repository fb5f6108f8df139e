"""Which results of a search count: filters over the attributes of files, and the least score."""

import operator
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rag.errors import InvalidRequest, UnsupportedParameter

Attributes = Mapping[str, Any]
Matches = Callable[[Attributes], bool]

_DEEPEST = 8
_MOST_PARTS = 100
_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "eq": operator.eq,
    "gt": operator.gt,
    "gte": operator.ge,
    "lt": operator.lt,
    "lte": operator.le,
}


def read_filter(given: object, *, param: str = "filters", depth: int = 0) -> Matches:
    """Turn a filter of a request into a test of attributes. Raises: InvalidRequest naming the place."""
    if not isinstance(given, Mapping):
        raise InvalidRequest(f"{param}: a filter is an object with a type", param=param)
    if depth > _DEEPEST:
        raise InvalidRequest(f"{param}: filters are nested deeper than {_DEEPEST}", param=param)
    kind = given.get("type")
    if kind in ("and", "or"):
        return _compound(given, all if kind == "and" else any, param, depth)
    key, value = given.get("key"), given.get("value")
    if not isinstance(key, str):
        raise InvalidRequest(f"{param}.key must be the name of an attribute", param=param)
    if kind in ("in", "nin"):
        if not isinstance(value, list) or not all(isinstance(v, str | int | float) for v in value):
            raise InvalidRequest(f"{param}.value must be a list of strings or numbers", param=param)
        return lambda attributes: (attributes.get(key) in value) == (kind == "in")
    if not isinstance(value, str | int | float):
        raise InvalidRequest(f"{param}.value must be a string, a number or a boolean", param=param)
    if kind == "ne":
        return lambda attributes: not _holds(operator.eq, attributes.get(key), value)
    if kind not in _COMPARED:
        known = ", ".join((*_COMPARED, "ne", "in", "nin", "and", "or"))
        raise InvalidRequest(f"{param}.type {str(kind)[:40]!r} is unknown: {known} are known", param=param)
    compared = _COMPARED[kind]
    return lambda attributes: _holds(compared, attributes.get(key), value)


def _compound(
    given: Mapping[str, Any], joined: Callable[[Iterable[bool]], bool], param: str, depth: int
) -> Matches:
    listed = given.get("filters")
    if not isinstance(listed, list) or not 1 <= len(listed) <= _MOST_PARTS:
        raise InvalidRequest(f"{param}.filters must be a list of 1 to {_MOST_PARTS} filters", param=param)
    parts = [
        read_filter(part, param=f"{param}.filters.{index}", depth=depth + 1)
        for index, part in enumerate(listed)
    ]
    return lambda attributes: joined(part(attributes) for part in parts)


def _holds(compared: Callable[[Any, Any], bool], held: object, value: object) -> bool:
    """Compare only what is of one kind: a missing attribute or another type never matches."""
    if isinstance(held, bool) or isinstance(value, bool):
        same = isinstance(held, bool) and isinstance(value, bool)
    elif isinstance(held, int | float):
        same = isinstance(value, int | float)
    else:
        same = isinstance(held, str) and isinstance(value, str)
    return same and compared(held, value)


def read_threshold(options: object, *, param: str) -> float:
    """Read `ranking_options`; give the least score that counts.

    Raises: InvalidRequest, UnsupportedParameter.
    """
    if options is None:
        return 0.0
    if not isinstance(options, dict):
        raise InvalidRequest(f"{param} must be an object", param=param)
    if options.get("ranker") not in (None, "auto", "default-2024-11-15"):
        raise UnsupportedParameter(f"{param}.ranker: only auto is supported", param=f"{param}.ranker")
    if options.get("hybrid_search") is not None:
        raise UnsupportedParameter(
            f"{param}.hybrid_search is not supported: both sides are joined by rank, without weights",
            param=f"{param}.hybrid_search",
        )
    least = options.get("score_threshold") or 0.0
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0 <= least <= 1:
        raise InvalidRequest(f"{param}.score_threshold must be a number from 0 to 1", param=param)
    return float(least)
