"""Small real parts for the service: a chat model that repeats its first source, a bag-of-words embedder,
and a library in memory."""

import asyncio
import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from engine.chat_model import Delta, GenerationParams, TokenLogprob
from engine.engine import EngineStatus
from engine.errors import ContextTooLong
from engine.scheduler import SchedulerStatus
from ingest.library import LibraryStatus, PendingFile
from ingest.values import Chunk, CollectionInfo, DocumentInfo, Hit
from rag.app import create_app
from rag.language import terms
from rag.settings import Settings
from tests.rag.calling import client_of


class WordTokens:
    """Words, blanks and marks as tokens; ids by first appearance. `<|end|>` is a control token."""

    def __init__(self) -> None:
        self._ids: dict[str, int] = {}
        self._texts: list[str] = []

    def encode(self, text: str, *, special: bool) -> list[int]:
        pattern = r"<\|\w+\|>|\w+|\s+|[^\w\s]" if special else r"\w+|\s+|[^\w\s]"
        return [self._id(piece) for piece in re.findall(pattern, text)]

    def text(self, token: int) -> str:
        return self._texts[token]

    def _id(self, piece: str) -> int:
        if piece not in self._ids:
            self._ids[piece] = len(self._texts)
            self._texts.append(piece)
        return self._ids[piece]


@dataclass
class FakeGeneration:
    """Gives prepared words; waits at `gate` before each where there is one."""

    words: list[str]
    n_prompt_tokens: int
    params: GenerationParams
    gate: asyncio.Event | None
    fails_after: int | None
    n_completion_tokens: int = 0
    n_cached_tokens: int = 0
    queued_s: float = 0.0
    at_once: int = 1
    cancelled: asyncio.Event = field(default_factory=asyncio.Event)

    async def batches(self) -> AsyncGenerator[list[Delta], None]:
        limit = self.params.max_tokens or len(self.words)
        shown = self.words[:limit]
        come: list[Delta] = []
        for index, word in enumerate(shown):
            if self.gate is not None:
                await self.gate.wait()
            if index == self.fails_after:
                raise RuntimeError("the kernel fell over")
            last = index == len(shown) - 1
            self.n_completion_tokens += 1
            finish = ("length" if len(shown) < len(self.words) else "stop") if last else None
            come.append(Delta(word, 1, self._logprobs(word), finish))
            if last or len(come) == self.at_once:
                yield come
                come = []

    def cancel(self) -> None:
        self.cancelled.set()

    def _logprobs(self, word: str) -> tuple[TokenLogprob, ...]:
        n = self.params.n_logprobs
        if n is None:
            return ()
        raw = word.encode()
        return (TokenLogprob(word, raw, -0.5, tuple((word, raw, -0.5) for _ in range(n))),)


class FakeChat:
    """Answers from documents with the first sentence of the first source, other things by repeating them."""

    name = "parrot"
    knows_tools = False
    thinks = False
    n_weights = 1_000_000_000

    def __init__(self) -> None:
        self.context_length = 2048
        self.thinking: bool | None = None
        self.gate: asyncio.Event | None = None
        self.fails_after: int | None = None
        self.at_once = 1
        self.reply: str | None = None
        self.prompts: list[str] = []
        self.generations: list[FakeGeneration] = []
        self._tokens = WordTokens()

    def opens_thought(self, prompt: Sequence[int]) -> bool:
        return self.detokenize(prompt[-8:]).endswith("<think>")

    def count_tokens(self, text: str) -> int:
        return len(self.tokenize(text, special=False))

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        return self._tokens.encode(text, special=special)

    def detokenize(self, token_ids: Sequence[int]) -> str:
        return "".join(self._tokens.text(token) for token in token_ids)

    def prompt_tokens(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool | None = None,
    ) -> list[int]:
        assert tools is None
        self.thinking = thinking
        return self.tokenize("".join(f"{m['role']}: {m['content']}<|end|>" for m in messages), special=True)

    def generate(self, prompt: Sequence[int], params: GenerationParams) -> FakeGeneration:
        if len(prompt) >= self.context_length:
            raise ContextTooLong(f"prompt has {len(prompt)} tokens; {self.name} reads {self.context_length}")
        text = "".join(self._tokens.text(token) for token in prompt)
        self.prompts.append(text)
        words = re.findall(r"\S+\s*", self.reply if self.reply is not None else self._reply(text))
        generation = FakeGeneration(words, len(prompt), params, self.gate, self.fails_after)
        generation.at_once = self.at_once
        self.generations.append(generation)
        return generation

    def _reply(self, prompt: str) -> str:
        if found := re.search(r"^\[1\] [^\n]*\n(.+?)(?:[.。]|$)", prompt, re.MULTILINE):
            return f"{found[1]} [1] and not [7]."
        return f"You said: {prompt.removesuffix('<|end|>').rpartition(': ')[2]}"


class FakeEmbedder:
    """Hashed content words as a unit vector: shared words are near, others are not."""

    name = "word-bag"
    dimension = 256
    max_tokens = 64

    def count_tokens(self, text: str) -> int:
        return len(re.findall(r"\w+|[^\w\s]", text))

    def embed(self, texts: Sequence[str], *, kind: Literal["document", "query"]) -> NDArray[np.float32]:
        assert kind in {"document", "query"}
        vectors = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in enumerate(texts):
            for word in terms(text) or [""]:
                digest = hashlib.sha256(word.encode()).digest()
                vectors[row, digest[0]] += 1 if digest[1] % 2 else -1
            vectors[row] /= max(float(np.linalg.norm(vectors[row])), 1e-6)
        return vectors


class FakeLibrary:
    """Chunks in memory; `put` replaces a document."""

    def __init__(self, embedder: FakeEmbedder) -> None:
        self._embedder = embedder
        self._chunks: list[Chunk] = []
        self._next = 1
        self.indexes_ready = True

    def compact(self) -> None:
        """Nothing deleted lies around in memory."""

    def put(self, path: str, *texts: str, collection: str = "default", page: int | None = None) -> None:
        self.delete(path)
        document_id = self._next
        for ordinal, text in enumerate(texts):
            heading = ("Guide",) if path.endswith(".md") else ()
            chunk = Chunk(
                self._next,
                document_id,
                path,
                path,
                collection,
                ordinal,
                heading,
                page,
                text,
                len(text.split()),
            )
            self._chunks.append(chunk)
            self._next += 1

    def delete(self, path: str) -> None:
        self._chunks = [chunk for chunk in self._chunks if chunk.path != path]

    def search_dense(
        self, vector: NDArray[np.float32], *, limit: int, collections: frozenset[str] | None
    ) -> list[Hit]:
        visible = self._visible(collections)
        vectors = self._embedder.embed([chunk.text for chunk in visible], kind="document")
        scores = vectors @ vector
        order = np.argsort(-scores, kind="stable")[:limit]
        return [Hit(visible[i].id, float(scores[i])) for i in order]

    def search_lexical(self, query: str, *, limit: int, collections: frozenset[str] | None) -> list[Hit]:
        asked = set(terms(query))
        hits = [
            Hit(c.id, len(asked & set(terms(c.text))) / max(len(asked), 1))
            for c in self._visible(collections)
        ]
        return sorted((hit for hit in hits if hit.score), key=lambda hit: -hit.score)[:limit]

    def cosines(self, vector: NDArray[np.float32], ids: Sequence[int]) -> dict[int, float]:
        chunks = self.chunks(ids)
        vectors = self._embedder.embed([chunk.text for chunk in chunks], kind="document")
        return {chunk.id: float(row @ vector) for chunk, row in zip(chunks, vectors, strict=True)}

    def chunks(self, ids: Sequence[int]) -> list[Chunk]:
        by_id = {chunk.id: chunk for chunk in self._chunks}
        return [by_id[i] for i in ids if i in by_id]

    def collections(self) -> list[CollectionInfo]:
        names = sorted({chunk.collection for chunk in self._chunks})
        return [
            CollectionInfo(
                name,
                len({c.path for c in self._chunks if c.collection == name}),
                sum(c.collection == name for c in self._chunks),
            )
            for name in names
        ]

    def collection_names(self) -> list[str]:
        return sorted({chunk.collection for chunk in self._chunks})

    def is_empty(self, collections: frozenset[str] | None = None) -> bool:
        return not self._visible(collections)

    def documents(self) -> list[DocumentInfo]:
        by_path: dict[str, list[Chunk]] = {}
        for chunk in self._chunks:
            by_path.setdefault(chunk.path, []).append(chunk)
        return [
            DocumentInfo(
                own[0].document_id,
                path,
                own[0].collection,
                path,
                "indexed",
                1,
                len(own),
                1,
                None,
                0,
                10,
                10**9,
            )
            for path, own in by_path.items()
        ]

    def document_chunks(self, path: str) -> list[Chunk]:
        return [chunk for chunk in self._chunks if chunk.path == path]

    def all_chunks(self) -> list[Chunk]:
        return list(self._chunks)

    def neighbours(self, chunk_id: int, *, before: int, after: int) -> list[Chunk]:
        for chunk in self.chunks([chunk_id]):
            return self.document_chunks(chunk.path)[
                max(0, chunk.ordinal - before) : chunk.ordinal + after + 1
            ]
        return []

    def reconcile(self, *, on_progress: object = None) -> None:
        pass

    def pending(self) -> list[PendingFile]:
        return []

    def status(self) -> LibraryStatus:
        return LibraryStatus(
            len({chunk.path for chunk in self._chunks}), len(self._chunks), 0, 0, 0, self.indexes_ready, None,
            0, False, None, {}, (), {},
        )  # fmt: skip

    def _visible(self, collections: frozenset[str] | None) -> list[Chunk]:
        return [c for c in self._chunks if collections is None or c.collection in collections]


@dataclass
class FakeEngine:
    """The models that are open."""

    chat: FakeChat | None
    embedder: FakeEmbedder | None
    reranker: Any = None
    n_forgotten: int = 0

    def status(self) -> EngineStatus:
        now = SchedulerStatus(2, 1, 0, 8, 6, 100, 20, 0, n_kept_blocks=4, n_reused_tokens=300)
        return EngineStatus("generic", 1, 0, 0, now)

    def forget_prefixes(self) -> None:
        self.n_forgotten += 1


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(FakeChat(), FakeEmbedder())


@pytest.fixture
def library(engine: FakeEngine) -> FakeLibrary:
    assert engine.embedder is not None
    library = FakeLibrary(engine.embedder)
    library.put("handbook.md", "Employees may carry over five vacation days. Ask Maria for the form.", page=3)
    library.put(
        "hr/pay.txt", "Salaries arrive on the 25th. A bonus of $5 or $10 is paid in June.", collection="hr"
    )
    library.put("规定.txt", "第十五条：员工每年享有二十五天年假。加班须经主管批准。", collection="人事")
    return library


@pytest.fixture
async def client(engine: FakeEngine, library: FakeLibrary) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service over the small parts, with settings as they are by themselves."""
    async with client_of(create_app(Settings(), engine=engine, library=library)) as client:  # type: ignore[arg-type]
        yield client
