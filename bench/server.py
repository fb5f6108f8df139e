"""Our service as a worker: serves on a port, and runs the same engine without HTTP when it is asked to.

Run as `python -m bench.server CHAT_MODEL FOLDER`; FOLDER may hold documents and their library.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import threading
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any

from bench import worker
from bench.product import HashEmbedder
from engine.engine import Engine
from engine.generation import GenerationParams
from ingest.library import Library
from rag.app import create_app
from rag.log import configure_logging
from rag.server import Server
from rag.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from engine.chat_model import ChatModel
    from engine.engine import EngineStatus
    from engine.generation import Generation

TOKENS_PER_WORD = 3
# What ends an answer, where a measurement needs all of its tokens.
ENDS = "<|im_end|><|endoftext|>"


def count_tokens(texts: Sequence[str]) -> list[int]:
    """Count about as a vocabulary would; stands in a module, so that it can be pickled."""
    return [TOKENS_PER_WORD * len(text.split()) for text in texts]


class LongWords(HashEmbedder):
    """The hashing embedder, counting the drawn words as the tokens that they are to a chat model."""

    name = "hash-384-words"

    def count_tokens(self, text: str) -> int:
        return TOKENS_PER_WORD * len(text.split())

    @property
    def token_counter(self) -> Callable[[Sequence[str]], list[int]]:
        return count_tokens


class LargeChat:
    """The chat model, asked as larger ones are: with whole passages. Remembers the last prompt."""

    n_weights = 1_000_000_000

    def __init__(self, chat: ChatModel) -> None:
        self._chat = chat
        self.last: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._chat, name)

    def generate(self, prompt: Sequence[int], params: GenerationParams) -> Generation:
        self.last = list(prompt)
        return self._chat.generate(prompt, params)


class BenchEngine:
    """The real engine with the bench's embedder and chat model."""

    reranker = None

    def __init__(self, chat_model: Path) -> None:
        self._engine = Engine.open(chat_model=chat_model, embedding_model=None)
        assert self._engine.chat is not None
        self.chat = LargeChat(self._engine.chat)
        self.embedder = LongWords()

    def status(self) -> EngineStatus:
        return self._engine.status()

    def forget_prefixes(self) -> None:
        self._engine.forget_prefixes()

    def close(self) -> None:
        self._engine.close()


def first_token(chat: LargeChat) -> dict[str, Any]:
    """Continue the last prompt again, without HTTP; seconds to the first piece of text."""
    start = perf_counter()
    generation = chat.generate(chat.last, GenerationParams(temperature=0.0, max_tokens=4, tenant=""))
    seconds = 0.0
    for delta in generation:
        if delta.text and not seconds:
            seconds = perf_counter() - start
    return {"value": seconds, "n_tokens": len(chat.last)}


def rate(chat: LargeChat, asked: Sequence[str], n_tokens: int, bias: dict[str, float]) -> dict[str, Any]:
    """Continue conversations side by side; tokens a second of all together."""
    params = GenerationParams(
        temperature=0.0,
        max_tokens=n_tokens,
        logit_bias={int(token): value for token, value in bias.items()},
        tenant="",
    )
    start = perf_counter()
    generations = [
        chat.generate(chat.prompt_tokens([{"role": "user", "content": text}]), params) for text in asked
    ]
    n = 0
    for generation in generations:
        for delta in generation:
            n += delta.n_tokens
    return {"value": n / (perf_counter() - start), "n_tokens": n}


def main() -> None:
    configure_logging("warning", as_json=False)  # to stderr, not between the replies
    folder = Path(sys.argv[2])
    engine = BenchEngine(Path(sys.argv[1]))
    documents = folder / "documents"
    documents.mkdir(parents=True, exist_ok=True)
    library = Library.open(folder / "data", documents_dir=documents, embedder=engine.embedder)
    settings = Settings(documents_dir=documents, data_dir=folder / "data", _env_file=None)  # type: ignore[call-arg]
    server = Server(create_app(settings, engine=engine, library=library))  # type: ignore[arg-type]
    with contextlib.ExitStack() as closing:
        closing.callback(engine.close)
        closing.callback(library.close)
        listener = closing.enter_context(socket.create_server(("127.0.0.1", 0)))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()

        def answer(request: dict[str, Any]) -> dict[str, Any]:
            match request["do"]:
                case "open":
                    return {
                        "port": listener.getsockname()[1],
                        "model": engine.chat.name,
                        "no_end": dict.fromkeys(engine.chat.tokenize(ENDS, special=True), -100.0),
                    }
                case "chunks":
                    return {"value": sum(known.n_chunks for known in library.collections())}
                case "reconcile":
                    library.reconcile()
                    return {}
                case "first":
                    return first_token(engine.chat)
                case "rate":
                    return rate(engine.chat, request["asked"], request["n_tokens"], request["bias"])
                case unknown:
                    raise ValueError(f"unknown request {unknown!r}")

        worker.serve(answer)
        server.should_exit = True
        thread.join()


if __name__ == "__main__":
    main()
