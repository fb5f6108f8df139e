"""The model files that the settings name: found, fetched, described."""

from dataclasses import dataclass
from pathlib import Path

from engine.model_store import ModelStore
from rich.console import Console

from engine.errors import ModelNotFound
from rag.settings import Settings
from rag.terminal import download_progress


@dataclass(frozen=True, slots=True)
class Models:
    """The files that the settings name."""

    chat: Path | None
    embedding: Path


def in_use(settings: Settings) -> list[str]:
    """Name the models of the settings as they are written there."""
    return [spec for spec in (settings.chat_model, settings.embedding_model) if spec]


def find(settings: Settings) -> Models:
    """Find the models on disk. Raises: ModelNotFound, naming the pull command."""
    store = ModelStore(settings.models_dir)
    return Models(
        chat=store.resolve(settings.chat_model) if settings.chat_model else None,
        embedding=store.resolve(settings.embedding_model),
    )


def fetch_missing(settings: Settings, out: Console) -> Models:
    """Find the models on disk and fetch those that are missing. Raises: DownloadFailed, ModelNotFound."""
    store = ModelStore(settings.models_dir)
    for spec in in_use(settings):
        try:
            store.resolve(spec)
        except ModelNotFound:
            pull(settings, spec, out)
    return find(settings)


def pull(settings: Settings, spec: str, out: Console) -> Path:
    """Fetch one model, with a progress bar."""
    with download_progress(out) as bars:
        task = bars.add_task(spec, total=None)

        def show(done: int, total: int | None, label: str) -> None:
            bars.update(task, completed=done, total=total, description=label)

        return ModelStore(settings.models_dir).pull(spec, progress=show)
