"""The tiny models of tests/data, converted once."""

from pathlib import Path

import pytest

from engine.convert import convert

TINY = Path(__file__).parents[1] / "data" / "tiny"


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with <name>.gguf in F32 for every folder of tests/data/tiny."""
    folder = tmp_path_factory.mktemp("tiny")
    for source in TINY.iterdir():
        if source.is_dir():
            convert(source, folder / f"{source.name}.gguf", tensor_type="F32")
    return folder
