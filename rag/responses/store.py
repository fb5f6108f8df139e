"""Responses that clients may come back to: kept in memory, never on the disk, and forgotten in the end."""

import json
from collections import OrderedDict
from dataclasses import dataclass
from threading import Lock
from typing import Any

from rag.errors import InvalidRequest, NotFound

_MOST = 1000
_MOST_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Kept:
    """A response, what was asked, and the conversation so far without the instructions."""

    tenant: str
    response: dict[str, Any]
    input_items: list[dict[str, Any]]
    messages: list[dict[str, Any]]
    n_bytes: int


class ResponseStore:
    """The latest responses. A key finds its own only. Thread-safe."""

    def __init__(self, *, most: int = _MOST, most_bytes: int = _MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._lock = Lock()
        self._kept: OrderedDict[str, Kept] = OrderedDict()
        self._n_bytes = 0

    def keep(
        self,
        response: dict[str, Any],
        *,
        tenant: str,
        input_items: list[dict[str, Any]],
        messages: list[dict[str, Any]],
    ) -> None:
        """Keep a response; the oldest make way."""
        n_bytes = len(json.dumps((response, input_items, messages)))
        with self._lock:
            self._kept[response["id"]] = Kept(tenant, response, input_items, messages, n_bytes)
            self._n_bytes += n_bytes
            while self._kept and (len(self._kept) > self._most or self._n_bytes > self._most_bytes):
                _, oldest = self._kept.popitem(last=False)
                self._n_bytes -= oldest.n_bytes

    def find(self, response_id: str, *, tenant: str) -> Kept:
        """Give a response. Raises: NotFound."""
        with self._lock:
            kept = self._kept.get(response_id)
        if kept is None or kept.tenant != tenant:
            raise NotFound(
                f"Response with id {response_id[:80]!r} not found: responses are kept in memory, the latest "
                f"{self._most} of them, until the service stops",
                param="response_id",
            )
        return kept

    def previous(self, response_id: str, *, tenant: str) -> list[dict[str, Any]]:
        """Give the conversation that a request goes on with. Raises: InvalidRequest."""
        try:
            return self.find(response_id, tenant=tenant).messages
        except NotFound as error:
            raise InvalidRequest(
                f"Previous {error.message[0].lower()}{error.message[1:]}",
                code="previous_response_not_found",
                param="previous_response_id",
            ) from error

    def item(self, item_id: str, *, tenant: str) -> dict[str, Any]:
        """Give an item of any kept response by its id. Raises: InvalidRequest."""
        with self._lock:
            kept = [k for k in reversed(self._kept.values()) if k.tenant == tenant]
        for one in kept:
            items: list[dict[str, Any]] = [*one.response["output"], *one.input_items]
            for item in items:
                if item.get("id") == item_id:
                    return item
        raise InvalidRequest(f"Item with id {item_id[:80]!r} not found", code="item_not_found", param="input")

    def delete(self, response_id: str, *, tenant: str) -> None:
        """Forget a response. Raises: NotFound."""
        kept = self.find(response_id, tenant=tenant)
        with self._lock:
            if self._kept.pop(response_id, None) is not None:
                self._n_bytes -= kept.n_bytes
