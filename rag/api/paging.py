"""Lists that come in pages."""

from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel, Field

from rag.errors import InvalidRequest


class Paging(BaseModel):
    """Which part of a list is wanted."""

    limit: int = Field(20, ge=1, le=10_000)
    order: Literal["asc", "desc"] = "desc"
    after: str | None = Field(None, max_length=200)
    before: str | None = Field(None, max_length=200)


def page_of(items: Sequence[dict[str, Any]], paging: Paging) -> dict[str, Any]:
    ordered = list(items) if paging.order == "asc" else list(reversed(items))
    if paging.after is not None:
        ids = [item["id"] for item in ordered]
        if paging.after not in ids:
            raise InvalidRequest(f"after: there is no {paging.after[:80]!r} in this list", param="after")
        ordered = ordered[ids.index(paging.after) + 1 :]
    if paging.before is not None:
        ids = [item["id"] for item in ordered]
        if paging.before not in ids:
            raise InvalidRequest(f"before: there is no {paging.before[:80]!r} in this list", param="before")
        ordered = ordered[: ids.index(paging.before)]
    page = ordered[: paging.limit]
    ends = {"first_id": page[0]["id"] if page else None, "last_id": page[-1]["id"] if page else None}
    return {"object": "list", "data": page, **ends, "has_more": len(ordered) > len(page)}
