"""The model files that the settings name: found, fetched, described."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from engine.errors import ModelNotFound, UnsupportedModel
from engine.model_store import PRESETS, ModelStore, StoredModel
from rag.settings import Settings
from rag.terminal import download_progress

_SHOWN_KEYS = {
    "name": "general.name",
    "licence": "general.license",
    "context": "{}.context_length",
    "layers": "{}.block_count",
    "tokenizer": "tokenizer.ggml.model",
}


@dataclass(frozen=True, slots=True)
class Models:
    """The files that the settings name."""

    chat: Path | None
    embedding: Path | None
    rerank: Path | None = None


def in_use(settings: Settings) -> list[str]:
    """Name the models of the settings that run here, as they are written there."""
    roles = (
        (settings.chat_model, settings.chat_url),
        (settings.embedding_model, settings.embedding_url),
        (settings.rerank_model, settings.rerank_url),
    )
    return [spec for spec, url in roles if spec and not url]


def find(settings: Settings) -> Models:
    """Find the models on disk. Raises: ModelNotFound, naming the pull command."""
    store = ModelStore(settings.models_dir)

    def path(spec: str | None, url: str | None) -> Path | None:
        return store.resolve(spec) if spec and not url else None

    return Models(
        chat=path(settings.chat_model, settings.chat_url),
        embedding=path(settings.embedding_model, settings.embedding_url),
        rerank=path(settings.rerank_model, settings.rerank_url),
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
    out.print(f"Fetching {spec}")
    with download_progress() as bars:
        task = bars.add_task(spec, total=None)

        def show(done: int, total: int | None, label: str) -> None:
            bars.update(task, completed=done, total=total, description=label)

        return ModelStore(settings.models_dir).pull(spec, progress=show)


def describe_all(settings: Settings) -> list[dict[str, str]]:
    """Describe the presets, the other models that were fetched, then files that somebody put there."""
    store = ModelStore(settings.models_dir)
    stored = {model.source: model for model in store.list()}
    fetched = {path for model in stored.values() for path in model.paths}
    rows = []
    for name, preset in PRESETS.items():
        model = stored.pop(preset.source, None)
        note = f"{preset.role}, {preset.languages}, {preset.licence}; {preset.note}"
        rows.append(_row(settings, name, model, note))
    for source, model in stored.items():
        rows.append(_row(settings, source, model, model.architecture))
    for path in sorted(settings.models_dir.rglob("*.gguf")):
        if path not in fetched and path.is_file():
            name = path.relative_to(settings.models_dir).as_posix()
            rows.append(_row(settings, name, path.stat().st_size, "a file of yours"))
    return rows


def _row(settings: Settings, name: str, model: StoredModel | int | None, note: str) -> dict[str, str]:
    """Describe a model, or a file of so many bytes."""
    size = model.total_size if isinstance(model, StoredModel) else model
    return {
        "model": name,
        "on disk": "-" if size is None else f"{size / 1e6:.0f} MB",
        "used": "yes" if name in in_use(settings) else "",
        "what it is": note,
    }


def describe_file(settings: Settings, spec: str) -> dict[str, str]:
    """Say what a model file says of itself. Raises: ModelNotFound, UnsupportedModel."""
    from engine._native import GgufError, GgufFile

    path = ModelStore(settings.models_dir).resolve(spec)
    try:
        file = GgufFile(str(path))
    except GgufError as error:
        raise UnsupportedModel(f"{path} is no GGUF file that can be read: {error}") from error
    tensors = file.tensors()
    types = Counter(tensor.type for tensor in tensors)
    n_weights = sum(math.prod(tensor.shape) for tensor in tensors)
    keys = set(file.keys())
    architecture = str(file.get("general.architecture")) if "general.architecture" in keys else "unknown"
    facts = {
        "file": str(path),
        "size": f"{path.stat().st_size / 1e6:.1f} MB",
        "architecture": architecture,
        "weights": f"{n_weights / 1e6:.1f} million in {len(tensors)} tensors",
        "tensor types": ", ".join(f"{name} ({n})" for name, n in types.most_common()),
        "chat template": "yes" if "tokenizer.chat_template" in keys else "no",
    }
    for label, key in _SHOWN_KEYS.items():
        if (key := key.format(architecture)) in keys:
            facts[label] = str(file.get(key))
    return facts
