"""Quarry inside a LangChain program: the same core in process, without a server.

with open_core(load_settings()) as core:
    model, retriever, embeddings = core.chat(), core.retriever(), core.embeddings()
"""

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, contextmanager
from typing import Any

from anyio import to_thread
from anyio.from_thread import start_blocking_portal
from langchain_core.callbacks import (
    AsyncCallbackManagerForLLMRun,
    CallbackManagerForLLMRun,
    CallbackManagerForRetrieverRun,
)
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, convert_to_openai_messages
from langchain_core.messages.ai import InputTokenDetails, UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import ConfigDict, Field

from rag import wire
from rag.answer import answer
from rag.asking import Ask, Parts
from rag.chat_request import read_chat
from rag.events import Called, End, Event, Text, Thought
from rag.models import ALL, resolve_chat
from rag.ports import Embedder, Engine, Library
from rag.prompt_files import load_prompts
from rag.retriever import Passage, Retriever
from rag.settings import Settings


class Core:
    """An open engine with an open library, and LangChain's view of them."""

    def __init__(self, settings: Settings, *, engine: Engine, library: Library) -> None:
        """Join what is open already; whoever opened it closes it."""
        self.settings = settings
        self.engine = engine
        self.library = library
        retriever = Retriever(
            embedder=engine.embedder,
            library=library,
            reranker=engine.reranker,
            limit=settings.top_k,
            candidates=settings.candidates,
        )
        self.parts = Parts(
            engine,
            retriever,
            settings.context_tokens,
            settings.answer_tokens,
            prompts=load_prompts(settings.prompts_dir),
            answers=settings.answers,
        )

    def chat(self, model: str = ALL, **how: Any) -> "QuarryChat":
        """Give a chat model: `quarry`, `quarry-<collection>`, or the chat model's own name."""
        return QuarryChat(core=self, model=model, **how)

    def retriever(self, model: str = ALL, *, k: int | None = None) -> "QuarryRetriever":
        """Give a retriever over all collections, or over those that a model's name means."""
        return QuarryRetriever(core=self, model=model, k=k)

    def embeddings(self) -> "QuarryEmbeddings":
        """Give the embedding model."""
        assert self.engine.embedder is not None  # noqa: S101 - open_core() opens one
        return QuarryEmbeddings(self.engine.embedder)


@contextmanager
def open_core(settings: Settings) -> Iterator[Core]:
    """Open models and library of the settings, and close them. Raises: what opening them raises."""
    from rag.stored_models import find
    from rag.up import open_house

    with open_house(settings, find(settings)) as (engine, library):
        yield Core(settings, engine=engine, library=library)


class QuarryEmbeddings(Embeddings):
    """LangChain's Embeddings over the engine's embedder."""

    def __init__(self, embedder: Embedder) -> None:
        """Take the embedder of an open engine."""
        self._embedder = embedder

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Embed passages."""
        return [[float(x) for x in vector] for vector in self._embedder.embed(texts, kind="document")]

    def embed_query(self, text: str) -> list[float]:
        """Embed a question."""
        return [float(x) for x in self._embedder.embed([text], kind="query")[0]]


class QuarryRetriever(BaseRetriever):
    """LangChain's retriever over the library: both searches, fused, reranked where a reranker is set."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    core: Core = Field(exclude=True)
    model: str = ALL
    k: int | None = Field(None, ge=1, le=100)

    def _get_relevant_documents(
        self,
        query: str,
        *,
        run_manager: CallbackManagerForRetrieverRun,  # noqa: ARG002 - as the base class has it
        **kwargs: Any,
    ) -> list[Document]:
        target = _target(self.core, self.model)
        limit = kwargs.get("k") or self.k
        found = self.core.parts.retriever.search(query, collections=target.collections, limit=limit)
        documents = [_document(passage) for passage in found]
        return documents[:limit]


class QuarryChat(BaseChatModel):
    """LangChain's chat model over the same answers that the service gives.

    Sources are in `response_metadata["sources"]`, thoughts in `additional_kwargs["reasoning_content"]`.
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, populate_by_name=True)

    core: Core = Field(exclude=True)
    model: str = ALL
    temperature: float | None = None
    max_tokens: int | None = None
    stop: list[str] | None = None
    seed: int | None = None
    sources_footer: bool = False

    @property
    def _llm_type(self) -> str:
        return "quarry"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens}

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Let the model call tools; `tool_choice` is a tool's name, auto, none, or any."""
        specs = [convert_to_openai_tool(tool) for tool in tools]
        names = [spec["function"]["name"] for spec in specs]
        choice: object = tool_choice
        if tool_choice in ("any", True):
            choice = "required"
        elif isinstance(tool_choice, str) and tool_choice in names:
            choice = {"type": "function", "function": {"name": tool_choice}}
        return super().bind(tools=specs, **({"tool_choice": choice} if choice else {}), **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _joined(list(self._stream(messages, stop, run_manager, **kwargs)))

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        return _joined([chunk async for chunk in self._astream(messages, stop, run_manager, **kwargs)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        ask = self._ask(messages, stop, kwargs)
        # The answers are an asynchronous stream: a thread with an event loop reads it for this one.
        with start_blocking_portal() as portal:
            events = _Steps(answer(ask, self.core.parts))
            try:
                while (event := portal.call(events.next)) is not None:
                    for chunk in _chunks(event, ask.target.name):
                        if run_manager is not None:
                            run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
                        yield chunk
            finally:
                portal.call(events.close)

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        ask = await to_thread.run_sync(self._ask, messages, stop, kwargs)
        async with aclosing(answer(ask, self.core.parts)) as events:
            async for event in events:
                for chunk in _chunks(event, ask.target.name):
                    if run_manager is not None:
                        await run_manager.on_llm_new_token(str(chunk.message.content), chunk=chunk)
                    yield chunk

    def _ask(self, messages: list[BaseMessage], stop: list[str] | None, more: dict[str, Any]) -> Ask:
        own = {
            "temperature": self.temperature,
            "max_tokens": self.max_tokens,
            "stop": stop or self.stop,
            "seed": self.seed,
        }
        known = {key: value for key, value in more.items() if key in wire.ChatRequest.model_fields}
        converted = convert_to_openai_messages(messages)
        body = wire.ChatRequest.model_validate({"model": self.model, **own, **known, "messages": converted})
        core = self.core
        return read_chat(
            body,
            _target(core, body.model),
            chat=core.engine.chat,
            with_footer=self.sources_footer,
            tenant="",
        )


class _Steps:
    """An asynchronous stream, a step at a time."""

    def __init__(self, events: AsyncGenerator[Event, None]) -> None:
        self._events = events

    async def next(self) -> Event | None:
        return await anext(self._events, None)

    async def close(self) -> None:
        await self._events.aclose()


def _target(core: Core, name: str) -> Any:
    return resolve_chat(name, engine=core.engine, library=core.library, aliases=core.settings.gpt_aliases)


def _chunks(event: Event, model: str) -> Iterator[ChatGenerationChunk]:
    if isinstance(event, Text) and event.text:
        yield ChatGenerationChunk(message=AIMessageChunk(content=event.text))
    elif isinstance(event, Thought):
        extra = {"reasoning_content": event.text}
        yield ChatGenerationChunk(message=AIMessageChunk(content="", additional_kwargs=extra))
    elif isinstance(event, Called):
        calls = [
            tool_call_chunk(name=call.name, args=call.arguments, id=call.id, index=index)
            for index, call in enumerate(event.calls)
        ]
        yield ChatGenerationChunk(message=AIMessageChunk(content="", tool_call_chunks=calls))
    elif isinstance(event, End):
        usage = UsageMetadata(
            input_tokens=event.n_prompt_tokens,
            output_tokens=event.n_completion_tokens,
            total_tokens=event.n_prompt_tokens + event.n_completion_tokens,
            input_token_details=InputTokenDetails(cache_read=event.n_cached_tokens),
        )
        metadata = {
            "model_name": model,
            "finish_reason": event.finish_reason,
            "sources": wire.sources_json(event.sources, event.cited),
        }
        message = AIMessageChunk(
            content="", usage_metadata=usage, response_metadata=metadata, chunk_position="last"
        )
        yield ChatGenerationChunk(message=message)


def _joined(chunks: list[ChatGenerationChunk]) -> ChatResult:
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole += chunk
    message = whole.message
    assert isinstance(message, AIMessageChunk)  # noqa: S101 - _chunks() makes no others
    answer_message = AIMessage(
        content=message.content,
        additional_kwargs=message.additional_kwargs,
        response_metadata=message.response_metadata,
        tool_calls=message.tool_calls,
        invalid_tool_calls=message.invalid_tool_calls,
        usage_metadata=message.usage_metadata,
    )
    return ChatResult(generations=[ChatGeneration(message=answer_message)])


def _document(passage: Passage) -> Document:
    return Document(
        page_content=passage.text,
        metadata={
            "source": passage.path,
            "title": passage.title,
            "collection": passage.collection,
            "heading_path": list(passage.heading_path),
            "page": passage.page,
            "score": passage.score,
            "chunk_ids": list(passage.chunk_ids),
        },
    )
