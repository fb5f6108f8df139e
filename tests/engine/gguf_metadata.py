"""Read GGUF metadata with the `gguf` package: an implementation other than ours."""

from pathlib import Path

from gguf import GGUFReader


def read_metadata(path: Path) -> dict[str, object]:
    """Return the keys of a GGUF file with their values."""
    return {key: field.contents() for key, field in GGUFReader(path).fields.items()}
