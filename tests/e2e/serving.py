"""A real service on a real port, with the starter models, for clients that nobody here wrote."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import openai

from engine.engine import Engine
from engine.remote import MixedEngine
from ingest.library import Library
from rag.app import create_app
from rag.server import Server
from rag.settings import Settings
from rag.upstreams import with_upstreams


@dataclass(frozen=True)
class Served:
    """A service that runs, and the folder that it watches."""

    url: str
    documents: Path
    engine: Engine | MixedEngine
    key: str

    @property
    def chat_name(self) -> str:
        assert self.engine.chat is not None
        return self.engine.chat.name

    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0)

    def aclient(self) -> openai.AsyncOpenAI:
        return openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0)


@contextmanager
def serve(
    folder: Path,
    settings: Settings,
    *,
    chat: Path | None = None,
    embedding: Path | None = None,
    rerank: Path | None = None,
    key: str = "any",
) -> Iterator[Served]:
    """Read `folder`/documents and serve it to clients that use `key`; models without a file run elsewhere."""
    documents = folder / "documents"
    documents.mkdir(exist_ok=True)
    settings = settings.model_copy(update={"documents_dir": documents, "data_dir": folder / "data"})
    models = {"chat_model": chat, "embedding_model": embedding, "rerank_model": rerank}
    # A reranker of the tests has random weights.
    local = Engine.open(**models, threads=2, check_models=rerank is None)
    engine = with_upstreams(local, settings)
    assert engine.embedder is not None
    library = Library.open(
        folder / "data",
        documents_dir=documents,
        embedder=engine.embedder,
        settle_seconds=0.1,
        forget_copies=engine.forget_prefixes,
    )
    local.keep_prefixes_in(folder / "data" / "prefixes", limit_bytes=settings.prefix_disk_mb << 20)
    try:
        library.reconcile()
        library.start_watching()
        app = create_app(settings, engine=engine, library=library)
        server = Server(app, grace_s=2)
        with socket.create_server(("127.0.0.1", 0)) as listener:
            thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
            thread.start()
            try:
                yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", documents, engine, key)
            finally:
                server.should_exit = True
                thread.join()
    finally:
        library.close()
        engine.close()
