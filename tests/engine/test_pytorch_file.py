"""PyTorch checkpoints are read without being run (tests/golden/make_pytorch_file.py)."""

import io
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConversionError
from engine.pytorch_file import MAX_PICKLE_BYTES, read_pytorch

DATA = Path(__file__).parents[1] / "data" / "pytorch"


def test_values_are_those_of_torch() -> None:
    tensors = read_pytorch(DATA / "pytorch_model.bin")
    golden = np.load(DATA / "values.npz")
    assert set(tensors) == {*golden.files, "ids"}
    for name in golden.files:
        stored = tensors[name]
        np.testing.assert_array_equal(stored.to_float(stored.map()), golden[name])
    with pytest.raises(ConversionError, match="ids is of type I64"):
        tensors["ids"].map()


def archive(path: Path, program: bytes, *, compression: int = zipfile.ZIP_STORED) -> Path:
    """Write a checkpoint whose pickle is `program`, with 16 bytes of values."""
    with zipfile.ZipFile(path, "w", compression) as out:
        out.writestr("model/data.pkl", program)
        out.writestr("model/data/0", bytes(16))
    return path


class _Called:
    """Pickles as a call of `function`."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.call


# As torch writes a tensor of 4 values, storage "0"; {}: first value, shape and strides.
_TENSOR = (
    b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
    b"ctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK%btQK%b(%bt(%bt\x89}tRs."
)


def tensor(
    n_values: int = 4, first: int = 0, shape: bytes = b"K\x02K\x02", strides: bytes = b"K\x02K\x01"
) -> bytes:
    return _TENSOR % (bytes([n_values]), bytes([first]), shape, strides)


def test_the_handmade_tensor_is_read(tmp_path: Path) -> None:
    stored = read_pytorch(archive(tmp_path / "right.bin", tensor()))["w"]
    assert stored.shape == (2, 2)
    assert stored.map().tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize(
    ("program", "message"),
    [
        pytest.param(pickle.dumps(_Called(print, "run"), 2), "calls __builtin__.print", id="call"),
        pytest.param(pickle.dumps(_Called(eval, "1"), 4), "calls builtins.eval", id="call-protocol-4"),
        pytest.param(b"cos\nsystem\n(Vrun\ntR.", "instruction UNICODE", id="protocol-0"),
        pytest.param(b"\x80\x02(cos\nsystem\nX\x03\x00\x00\x00runo.", "instruction OBJ", id="object"),
        pytest.param(b"\x80\x02cos\nsystem\n)\x81.", "instruction NEWOBJ", id="new-object"),
        pytest.param(b"\x80\x02\x82\x01.", "instruction EXT1", id="extension"),
        pytest.param(b"\x80\x02K\x01.", "makes a int", id="no-table"),
        pytest.param(b"\x80\x02}", "do not fit together", id="no-stop"),
        pytest.param(b"\x80\x02.", "do not fit together", id="empty-stack"),
        pytest.param(b"\x80\x02t.", "do not fit together", id="no-mark"),
        pytest.param(b"\x80\x02j\xff\xff\xff\x7f.", "do not fit together", id="no-memo"),
        pytest.param(b"\x80\x02}r\xff\xff\xff\x7f.", None, id="memo-far-out"),
        pytest.param(b"\x80\x02X\xff\xff\xff\x7f.", "do not fit together", id="text-past-the-end"),
        pytest.param(b"\x80\x04\x8d" + b"\xff" * 8 + b".", "do not fit together", id="text-huge"),
        pytest.param(tensor(n_values=5), "5 values in 16 bytes", id="storage-too-small"),
        pytest.param(tensor(first=1), "begins at 1 of 4", id="begins-too-late"),
        pytest.param(tensor(shape=b"K\x02K\x03"), "6 values", id="too-many-values"),
        pytest.param(tensor(strides=b"K\x01K\x02"), "do not lie in order", id="transposed"),
        pytest.param(tensor(shape=b"K\x02J\xff\xff\xff\xff"), "no number", id="negative"),
        pytest.param(
            tensor(shape=b"K\x01" * 9, strides=b"K\x01" * 9), "too many dimensions", id="dimensions"
        ),
        pytest.param(tensor().replace(b"FloatStorage", b"OtherStorage"), "torch.OtherStorage", id="type"),
        pytest.param(tensor().replace(b"\x01\x00\x00\x000", b"\x01\x00\x00\x009"), "fit together", id="key"),
    ],
)
def test_nothing_else_is_followed(program: bytes, message: str | None, tmp_path: Path) -> None:
    path = archive(tmp_path / "hostile.bin", program)
    if message is None:
        assert read_pytorch(path) == {}
        return
    with pytest.raises(ConversionError, match=message):
        read_pytorch(path)


def test_odd_archives_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match="is missing"):
        read_pytorch(tmp_path / "absent.bin")
    legacy = tmp_path / "legacy.bin"
    legacy.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))
    with pytest.raises(ConversionError, match=r"PyTorch before 1\.6"):
        read_pytorch(legacy)
    with pytest.raises(ConversionError, match="compressed or encrypted"):
        read_pytorch(archive(tmp_path / "deflated.bin", tensor(), compression=zipfile.ZIP_DEFLATED))
    big = archive(tmp_path / "big.bin", bytes(MAX_PICKLE_BYTES + 1))
    with pytest.raises(ConversionError, match="at most"):
        read_pytorch(big)
    empty = io.BytesIO()
    with zipfile.ZipFile(empty, "w"):
        pass
    (tmp_path / "empty.bin").write_bytes(empty.getvalue())
    with pytest.raises(ConversionError, match=r"holds 0 data\.pkl"):
        read_pytorch(tmp_path / "empty.bin")


@pytest.mark.parametrize("seed", range(4))
def test_mutated_files_are_read_or_refused(seed: int, tmp_path: Path) -> None:
    random = np.random.default_rng(seed)
    whole = (DATA / "pytorch_model.bin").read_bytes()
    path = tmp_path / "mutated.bin"
    for _ in range(200):
        data = bytearray(whole)
        for at in random.integers(0, len(data), random.integers(1, 6)):
            data[at] = random.integers(0, 256)
        path.write_bytes(data[: random.integers(1, len(data))] if random.random() < 0.2 else data)
        try:
            for stored in read_pytorch(path).values():
                if stored.dtype in ("F32", "F16", "BF16"):
                    stored.map()
        except ConversionError:
            pass
