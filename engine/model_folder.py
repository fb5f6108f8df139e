"""Which files of a Hugging Face folder hold its tensors."""

from collections.abc import Callable, Mapping
from pathlib import Path

from engine.errors import ConversionError
from engine.pytorch_file import read_pytorch
from engine.safetensors_folder import StoredTensor, read_json, read_safetensors

# In the order in which they are looked for: whole, or in shards that an index names.
_KINDS: tuple[tuple[str, Callable[[Path], Mapping[str, StoredTensor]]], ...] = (
    ("model.safetensors", read_safetensors),
    ("pytorch_model.bin", read_pytorch),
)


def read_tensors(folder: Path) -> Mapping[str, StoredTensor]:
    """List the tensors of a folder. Raises: ConversionError naming the file and what is odd."""
    for name, read in _KINDS:
        index = folder / f"{name}.index.json"
        if index.exists():
            return _read_shards(index, read)
        if (folder / name).exists():
            return read(folder / name)
    names = ", ".join(name for name, _ in _KINDS)
    raise ConversionError(f"neither {names} nor an index of shards is in {folder}")


def _read_shards(
    index: Path, read: Callable[[Path], Mapping[str, StoredTensor]]
) -> Mapping[str, StoredTensor]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ConversionError(f"{index} has no weight_map")
    tensors: dict[str, StoredTensor] = {}
    for shard in sorted({str(name) for name in weight_map.values()}):
        if Path(shard).name != shard:
            raise ConversionError(f"{index} names the shard {shard!r}, which is not a plain file name")
        tensors.update(read(index.parent / shard))
    for name in weight_map:
        if name not in tensors:
            raise ConversionError(
                f"tensor {name} is in {index.name}, but not in the shard {weight_map[name]}"
            )
    return tensors
