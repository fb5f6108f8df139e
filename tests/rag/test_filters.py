"""Filters of vector stores: what they match, and what is wrong with them."""

from typing import Any

import pytest

from rag.errors import InvalidRequest
from rag.filters import read_filter

HELD = {"year": 2026, "team": "blue", "final": True, "share": 0.5}


def compare(kind: str, key: str, value: Any) -> dict[str, Any]:
    return {"type": kind, "key": key, "value": value}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(compare("eq", "team", "blue"), True, id="eq"),
        pytest.param(compare("ne", "team", "blue"), False, id="ne"),
        pytest.param(compare("ne", "absent", "blue"), True, id="ne of what is absent"),
        pytest.param(compare("gt", "year", 2025), True, id="gt"),
        pytest.param(compare("gte", "year", 2026), True, id="gte"),
        pytest.param(compare("lt", "share", 0.5), False, id="lt"),
        pytest.param(compare("lte", "share", 0.5), True, id="lte"),
        pytest.param(compare("gt", "team", 3), False, id="string against number"),
        pytest.param(compare("eq", "final", 1), False, id="a boolean is no number"),
        pytest.param(compare("eq", "final", True), True, id="boolean"),
        pytest.param(compare("gt", "absent", 0), False, id="absent"),
        pytest.param(compare("in", "team", ["red", "blue"]), True, id="in"),
        pytest.param(compare("nin", "team", ["red", "blue"]), False, id="nin"),
        pytest.param(
            {"type": "and", "filters": [compare("eq", "team", "blue"), compare("lt", "year", 2026)]},
            False,
            id="and",
        ),
        pytest.param(
            {"type": "or", "filters": [compare("eq", "team", "blue"), compare("lt", "year", 2026)]},
            True,
            id="or",
        ),
    ],
)
def test_filter_matches(given: dict[str, Any], expected: bool) -> None:
    assert read_filter(given)(HELD) is expected


def nested(depth: int) -> dict[str, Any]:
    inner: dict[str, Any] = compare("eq", "a", 1)
    for _ in range(depth):
        inner = {"type": "and", "filters": [inner]}
    return inner


@pytest.mark.parametrize(
    ("given", "named"),
    [
        pytest.param("x", "filters", id="no object"),
        pytest.param(compare("like", "team", "b"), "filters.type", id="unknown type"),
        pytest.param({"type": "eq", "value": 1}, "filters.key", id="no key"),
        pytest.param(compare("eq", "team", None), "filters.value", id="no value"),
        pytest.param(compare("in", "team", "blue"), "filters.value", id="no list"),
        pytest.param({"type": "and", "filters": []}, "filters.filters", id="empty"),
        pytest.param(
            {"type": "or", "filters": [compare("eq", "a", {})]}, "filters.filters.0.value", id="inner"
        ),
        pytest.param(nested(20), "nested deeper than 8", id="deep"),
    ],
)
def test_wrong_filter_names_the_place(given: object, named: str) -> None:
    with pytest.raises(InvalidRequest, match=named):
        read_filter(given)
