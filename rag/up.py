"""The composition: settings, then models, engine, library, app and server."""

import dataclasses
import gc
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from rich.console import Console

from ingest.errors import IngestError, LibraryClosed
from ingest.reconciler import DEFAULT_COLLECTION
from rag.client import announce, running_service, withdraw
from rag.errors import CannotListen
from rag.models import ALL, slug
from rag.settings import Settings, check_bind
from rag.stored_models import Models, in_use
from rag.terminal import print_error, reading_progress, show_next_steps, show_report

if TYPE_CHECKING:
    from engine.engine import Engine
    from engine.remote import MixedEngine
    from ingest.library import Library


@contextmanager
def open_house(settings: Settings, models: Models) -> "Iterator[tuple[Engine | MixedEngine, Library]]":
    """Open the engine and the library, and close them in the other order."""
    from engine.engine import Engine
    from ingest.library import Library
    from rag.upstreams import with_upstreams

    local = Engine.open(
        chat_model=models.chat,
        embedding_model=models.embedding,
        rerank_model=models.rerank,
        query_prefix=settings.embedding_query_prefix,
        document_prefix=settings.embedding_document_prefix,
        check_models=settings.check_models,
        checks_dir=settings.models_dir,
        threads=settings.threads,
        cache_tokens=settings.cache_tokens,
        cache_type=settings.cache_type,
        speculates=settings.speculation,
        queue_limit=settings.queue_limit,
    )
    try:
        engine = with_upstreams(local, settings)
    except BaseException:
        local.close()
        raise
    try:
        assert engine.embedder is not None  # noqa: S101 (an embedding model was given)
        library = Library.open(
            settings.data_dir,
            documents_dir=settings.documents_dir,
            embedder=engine.embedder,
            chroma_url=settings.chroma_url,
            forget_copies=engine.forget_prefixes,
        )
        try:
            # Only now: the library owns the data folder.
            prefixes = settings.data_dir / "prefixes"
            local.keep_prefixes_in(prefixes, limit_bytes=settings.prefix_disk_mb << 20)
            yield engine, library
        finally:
            library.close()
    finally:
        engine.close()


def serve(settings: Settings, out: Console, *, find_models: Callable[[], Models], started: float) -> None:
    """Serve until Ctrl-C or SIGTERM, and keep reading the documents folder.

    started: time.monotonic() when the command began, for the time to ready.
    Raises: CannotListen before anything slow is done.
    """
    from rag.server import Server, listen

    gc.disable()  # what is imported and opened until the first pass stays: looking through it costs a tenth
    check_bind(settings)
    if url := running_service(settings.data_dir):
        raise CannotListen(f"Quarry already serves {settings.data_dir} on {url}: use it, or stop it first")
    listener = listen(settings.host, settings.port)
    # By default SIGTERM would end the process before the library is closed: let it do as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with listener, open_house(settings, find_models()) as (engine, library):
        from rag.app import create_app

        app = create_app(settings, engine=engine, library=library)
        url = _url(settings.host, listener.getsockname()[1])
        reader = threading.Thread(
            target=_read_documents, args=(settings, library, out, url, started), name="first-pass"
        )

        def on_listening() -> None:
            announce(settings.data_dir, url)
            out.print(f"Serving on {url}")
            reader.start()

        try:
            # uvicorn ends what runs, then raises the signal that stopped it once more.
            with suppress(KeyboardInterrupt):
                Server(app, on_listening=on_listening, grace_s=settings.stop_grace_s).run([listener])
        finally:
            withdraw(settings.data_dir)
            library.close()
            if reader.ident is not None:
                reader.join()
    out.print("Stopped.")


def _read_documents(settings: Settings, library: "Library", out: Console, url: str, started: float) -> None:
    """Bring the library up to the folder, say what to try, and keep watching."""
    try:
        with reading_progress() as show:
            report = library.reconcile(on_progress=lambda now: show(dataclasses.asdict(now)))
        library.start_watching()
        collections = [name for name in library.collection_names() if name != DEFAULT_COLLECTION]
    except LibraryClosed:
        return  # Ctrl-C during the first pass
    except IngestError as error:
        print_error(f"{error}; the service goes on with what it has")
        return
    finally:
        gc.freeze()
        gc.enable()
    out.print(f"Ready after {time.monotonic() - started:.1f} s")
    show_report(out, dataclasses.asdict(report))
    show_next_steps(
        out,
        url,
        models=[f"{ALL}-{slug(name)}" for name in collections],
        needs_key=bool(settings.api_keys),
        starter=any(spec.startswith("starter-") for spec in in_use(settings)),
    )


def _url(host: str, port: int) -> str:
    name = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104 (compared, not bound)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"
