"""What the routes share, and how they reach it."""

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from anyio import CapacityLimiter
from fastapi import Request

from rag.admission import Admission
from rag.asking import Parts
from rag.auth import Caller
from rag.errors import ApiError, NotReady
from rag.links import Linking, Links, linking, reachable_base
from rag.metrics import Metrics
from rag.models import Target, resolve_chat
from rag.ports import ChatModel, Library
from rag.responses.store import ResponseStore
from rag.settings import Settings
from rag.shutdown import Shutdown
from rag.sse import Patient
from rag.stores import Stores

T = TypeVar("T")


class ClientGone(ApiError):
    """The client closed the connection; nobody reads this answer."""

    status = 499
    default_code = "client_closed_request"


@dataclass(frozen=True, slots=True)
class Service:
    """The parts of a running service.

    embedding_threads: keeps bulk embedding from blocking searches.
    """

    settings: Settings
    library: Library
    parts: Parts
    admission: Admission
    shutdown: Shutdown
    embedding_threads: CapacityLimiter
    started: int
    metrics: Metrics
    stores: Stores
    links: Links
    responses: ResponseStore

    def chat(self) -> ChatModel:
        """Give the chat model. Raises: NotReady, where none is configured."""
        chat = self.parts.engine.chat
        if chat is None:
            raise NotReady("no chat model is configured: set QUARRY_CHAT_MODEL")
        return chat

    def target(self, model: str, caller: Caller) -> Target:
        """Find what a caller means by a model's name. Raises: UnknownModel, InvalidRequest."""
        return resolve_chat(
            model,
            engine=self.parts.engine,
            library=self.library,
            aliases=self.settings.gpt_aliases,
            seen=caller.collections,
        )

    def patient(self, source: AsyncGenerator[T, None]) -> Patient[T]:
        """Wait for `source` with patience, and end it when the service ends."""
        patient = Patient(source)
        self.shutdown.watch(patient)
        return patient


def linking_for(request: Request, wanted: str | None) -> Linking | None:
    """Say how an answer to this request is linked to its sources."""
    service = service_of(request)
    how = wanted or service.settings.source_links
    if how == "none":
        return None
    base = reachable_base(str(request.base_url), service.settings.public_url)
    return linking(service.links, base, in_text=how == "text")


def service_of(request: Request) -> Service:
    """Give the service that answers a request."""
    service: Service = request.app.state.service
    return service


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """Run `work`; cancel it when the client closes the connection. Raises: ClientGone, what `work` raises."""
    working = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(_disconnect(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise ClientGone("the client closed the connection")
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _disconnect(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
