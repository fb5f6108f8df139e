"""Writing models in other types: against llama.cpp's quantizer, and with input that is bad."""

import errno
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from numpy.typing import NDArray

from engine import _native
from engine.errors import DiskFull, UnsupportedModel
from engine.gguf_writer import TensorPlan, header, padding, unsigned, written_whole
from engine.importance import read_importance, write_importance
from engine.mixtures import MIXTURES
from engine.quantize import mixture_named, quantize

# Written by llama.cpp: tests/golden/make_quantized.py.
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "quantized.npz")
TYPES = [name for name in _native.type_names if name != "F32"]
N_TOKENS = 64


def write_model(
    path: Path,
    *,
    width: int = 256,
    n_layers: int = 4,
    change: Callable[[str, NDArray[np.float32]], NDArray[np.float32]] = lambda _, values: values,
) -> Path:
    """Write a llama of random F32 weights, with a matrix twice as wide as `width`."""
    rng = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(width)
    writer.add_block_count(n_layers)
    writer.add_feed_forward_length(2 * width)
    writer.add_head_count(4)
    writer.add_head_count_kv(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_string("general.name", "石头 quarry")
    shapes = {"token_embd.weight": (N_TOKENS, width), "output_norm.weight": (width,)}
    for i in range(n_layers):
        shapes |= {
            f"blk.{i}.attn_norm.weight": (width,),
            f"blk.{i}.ffn_norm.weight": (width,),
            f"blk.{i}.attn_q.weight": (width, width),
            f"blk.{i}.attn_k.weight": (width // 4, width),
            f"blk.{i}.attn_v.weight": (width // 4, width),
            f"blk.{i}.attn_output.weight": (width, width),
            f"blk.{i}.ffn_gate.weight": (2 * width, width),
            f"blk.{i}.ffn_up.weight": (2 * width, width),
            f"blk.{i}.ffn_down.weight": (width, 2 * width),
        }
    for name, shape in shapes.items():
        values = rng.standard_normal(shape, np.float32) * np.float32(width**-0.5)
        writer.add_tensor(name, change(name, values if len(shape) > 1 else np.ones(shape, np.float32)))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def types_of(path: Path) -> dict[str, str]:
    return {tensor.name: tensor.type for tensor in _native.GgufFile(str(path)).tensors()}


@pytest.mark.parametrize("kind", ["plain", "weighed"])
@pytest.mark.parametrize("name", TYPES)
def test_blocks_are_those_of_llama_cpp(name: str, kind: str, tmp_path: Path) -> None:
    weights, importance = GOLDEN["weights"], GOLDEN["importance"]
    writer = gguf.GGUFWriter(tmp_path / "rows.gguf", "llama")
    writer.add_tensor("x", weights)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    quantizer = _native.Quantizer(_native.GgufFile(str(tmp_path / "rows.gguf")), 2)
    ours = quantizer.rows("x", 0, len(weights), name, importance if kind == "weighed" else None)
    theirs = GOLDEN[f"{name}_{kind}"]
    number = gguf.GGMLQuantizationType[name]
    ours, theirs = (gguf.quants.dequantize(b.reshape(len(weights), -1), number) for b in (ours, theirs))
    block = gguf.GGML_QUANT_SIZES[number][0]
    same = (ours.reshape(-1, block) == theirs.reshape(-1, block)).all(axis=1)
    assert same.mean() >= 0.9
    counted = importance if kind == "weighed" else 1
    errors = [float(((values - weights) ** 2 * counted).sum()) for values in (ours, theirs)]
    assert errors[0] <= 1.01 * errors[1]


@pytest.mark.parametrize("name", MIXTURES)
def test_every_mixture_is_written_and_runs(name: str, tmp_path: Path) -> None:
    source, out = write_model(tmp_path / "f32.gguf"), tmp_path / "out.gguf"
    heard: list[tuple[int, int]] = []
    result = quantize(
        source, out, MIXTURES[name], progress=lambda done, total, _: heard.append((done, total))
    )
    assert out.stat().st_size == result.n_bytes
    assert heard[-1][0] == heard[-1][1]
    assert [done for done, _ in heard] == sorted(done for done, _ in heard)
    file = _native.GgufFile(str(out))
    assert file.get("general.name") == "石头 quarry"
    assert file.get("general.file_type") == MIXTURES[name].file_type
    # The gguf package reads what we wrote, too, with the sizes that we gave.
    assert len(gguf.GGUFReader(out).tensors) == len(file.tensors())
    ids = np.arange(32, dtype=np.int32)
    pool = _native.ThreadPool(1)
    logits = [
        _native.Decoder(_native.GgufFile(str(path)), pool, cache_tokens=64).logits(ids)
        for path in (source, out)
    ]
    cosine = (logits[0] * logits[1]).sum() / np.linalg.norm(logits[0]) / np.linalg.norm(logits[1])
    bits = result.bits_per_weight
    assert cosine >= (0.9999 if bits >= 16 else 0.98 if bits >= 6 else 0.9 if bits >= 4.5 else 0.6)


def test_mixtures_spend_bits_where_llama_cpp_does(tmp_path: Path) -> None:
    source, out = write_model(tmp_path / "f32.gguf", n_layers=8), tmp_path / "out.gguf"
    quantize(source, out, mixture_named("q4_k_m"))
    types = types_of(out)
    assert types["token_embd.weight"] == "Q6_K"
    for part in ("attn_v", "ffn_down"):
        found = [types[f"blk.{i}.{part}.weight"] for i in range(8)]
        assert found == ["Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q4_K", "Q4_K", "Q6_K", "Q6_K"]
    assert types["blk.3.attn_q.weight"] == types["blk.3.attn_k.weight"] == "Q4_K"
    assert types["blk.3.attn_norm.weight"] == "F32"


def test_narrow_rows_fall_back_and_it_is_said(tmp_path: Path) -> None:
    source, out = write_model(tmp_path / "f32.gguf", width=160), tmp_path / "out.gguf"
    result = quantize(source, out, mixture_named("q5_k_s"))
    assert result.fallbacks[("Q5_K", "Q5_1")] > 0
    assert types_of(out)["blk.0.attn_q.weight"] == "Q5_1"
    odd = write_model(tmp_path / "odd.gguf", width=40)
    assert quantize(odd, out, mixture_named("q4_0")).fallbacks[("Q4_0", "F16")] > 0


def test_importance_steers_the_rounding(tmp_path: Path) -> None:
    source = write_model(tmp_path / "f32.gguf")
    name = "blk.0.ffn_up.weight"
    matters = np.full((1, 256), 1e-4)
    matters[0, ::16] = 100
    write_importance(
        tmp_path / "i.gguf",
        {name: matters * 7},
        {name: np.array([7])},
        text_name="text.txt",
        n_chunks=1,
        chunk_tokens=512,
    )
    importance = read_importance(tmp_path / "i.gguf")
    np.testing.assert_allclose(importance.columns[name], matters[0], rtol=1e-6)
    for given, out in ((None, "plain.gguf"), (importance, "weighed.gguf")):
        result = quantize(source, tmp_path / out, mixture_named("q3_k_s"), importance=given)
    assert "blk.0.ffn_down.weight" in result.without_importance

    def error(path: str) -> float:
        rows = range(512)
        read = [
            np.stack([_native.GgufFile(str(tmp_path / p)).row(name, i) for i in rows])
            for p in ("f32.gguf", path)
        ]
        return float(((read[1] - read[0])[:, ::16] ** 2).sum())

    assert error("weighed.gguf") < 0.8 * error("plain.gguf")


def dat(entries: list[tuple[str, int, list[float]]]) -> bytes:
    """Write the older form of importance matrices."""
    out = struct.pack("<i", len(entries))
    for name, n_calls, values in entries:
        raw = name.encode()
        out += struct.pack(f"<i{len(raw)}sii{len(values)}f", len(raw), raw, n_calls, len(values), *values)
    return out + struct.pack("<ii8s", 4, 8, b"text.txt")


def test_the_older_form_of_importance_is_read(tmp_path: Path) -> None:
    path = tmp_path / "i.dat"
    path.write_bytes(dat([("blk.0.attn_q.weight", 4, [4.0, 8.0]), ("blk.0.attn_k.weight", 0, [1.0])]))
    columns = read_importance(path).columns
    assert {name: values.tolist() for name, values in columns.items()} == {
        "blk.0.attn_q.weight": [1.0, 2.0],
        "blk.0.attn_k.weight": [1.0],
    }


WHOLE = dat([("blk.0.attn_q.weight", 4, [4.0, 8.0])])


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        pytest.param(b"", "ends in the middle", id="empty"),
        pytest.param(b"hello, world", "is no importance matrix", id="text"),
        pytest.param(WHOLE[:30], "ends in the middle", id="cut"),
        pytest.param(WHOLE[:-20], "it is too short", id="cut values"),
        pytest.param(dat([("a", 1, [float("nan")])]), "not finite", id="nan"),
        pytest.param(dat([("a", 1, [-1.0])]), "below 0", id="negative"),
        pytest.param(b"GGUF" + b"\0" * 40, "cannot be read", id="broken gguf"),
    ],
)
def test_odd_importance_is_refused(raw: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "i"
    path.write_bytes(raw)
    with pytest.raises(UnsupportedModel, match=said):
        read_importance(path)


def test_importance_of_another_model_is_refused(tmp_path: Path) -> None:
    source = write_model(tmp_path / "f32.gguf")
    (tmp_path / "i.dat").write_bytes(dat([("blk.0.attn_q.weight", 1, [1.0] * 32)]))
    with pytest.raises(UnsupportedModel, match=r"32 columns for blk.0.attn_q.weight, which has 256"):
        quantize(
            source,
            tmp_path / "out.gguf",
            mixture_named("q4_0"),
            importance=read_importance(tmp_path / "i.dat"),
        )
    assert not (tmp_path / "out.gguf").exists()


def test_rounding_twice_needs_a_word(tmp_path: Path) -> None:
    source = write_model(tmp_path / "f32.gguf")
    quantize(source, tmp_path / "q8.gguf", mixture_named("Q8_0"))
    with pytest.raises(UnsupportedModel, match=r"is quantised already.*--requantize"):
        quantize(tmp_path / "q8.gguf", tmp_path / "out.gguf", mixture_named("q4_0"))
    quantize(tmp_path / "q8.gguf", tmp_path / "out.gguf", mixture_named("q4_0"), requantize=True)
    quantize(tmp_path / "q8.gguf", tmp_path / "f16.gguf", mixture_named("f16"))
    assert types_of(tmp_path / "f16.gguf")["blk.0.attn_q.weight"] == "F16"


def broken(name: str, values: NDArray[np.float32], value: float) -> NDArray[np.float32]:
    if name == "blk.1.ffn_up.weight":
        values[3, 5] = value
    return values


@pytest.mark.parametrize(
    ("value", "kind", "said"),
    [
        pytest.param(float("nan"), "q4_k_m", "row 3 that are no finite numbers", id="nan"),
        pytest.param(float("inf"), "q8_0", "row 3 that are no finite numbers", id="inf"),
        pytest.param(1e6, "f16", "row 3 beyond the range of F16; BF16 and F32", id="large"),
    ],
)
def test_values_that_cannot_be_written_are_named(value: float, kind: str, said: str, tmp_path: Path) -> None:
    source = write_model(tmp_path / "f32.gguf", change=lambda name, x: broken(name, x, value))
    with pytest.raises(UnsupportedModel, match=f"tensor 'blk.1.ffn_up.weight'.*{said}"):
        quantize(source, tmp_path / "out.gguf", mixture_named(kind))
    assert list(tmp_path.iterdir()) == [source]


def test_bad_files_are_refused(tmp_path: Path) -> None:
    source, out = write_model(tmp_path / "f32.gguf"), tmp_path / "out.gguf"
    with pytest.raises(UnsupportedModel, match="'q9_k' cannot be written; those that can are f32, f16"):
        mixture_named("q9_k")
    with pytest.raises(UnsupportedModel, match="is the file that is read"):
        quantize(source, source, mixture_named("q4_0"))
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(source.read_bytes()[:-1000])
    with pytest.raises(UnsupportedModel, match=r"cut.gguf cannot be quantised: .* bytes"):
        quantize(cut, out, mixture_named("q4_0"))
    write_importance(
        tmp_path / "i.gguf",
        {"a": np.ones((1, 2))},
        {"a": np.ones(1, np.int64)},
        text_name="t",
        n_chunks=1,
        chunk_tokens=1,
    )
    with pytest.raises(UnsupportedModel, match="no model"):
        quantize(tmp_path / "i.gguf", out, mixture_named("q4_0"))
    with pytest.raises(FileNotFoundError):
        quantize(tmp_path / "none.gguf", out, mixture_named("q4_0"))
    assert not out.exists()


def test_a_full_disk_is_foreseen(tmp_path: Path) -> None:
    with (
        pytest.raises(DiskFull, match=r"needs .* MB, but .* has .* MB left"),
        written_whole(tmp_path / "out", 1 << 60),
    ):
        pass
    assert not list(tmp_path.iterdir())


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with written_whole(tmp_path / "out", 1) as file:
            file.write(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_half()
    assert not list(tmp_path.iterdir())


def split(source: Path, folder: Path, n_parts: int, *, n_tensors: int | None = None) -> list[Path]:
    """Write a model in parts, as llama.cpp's gguf-split does: all keys in the first."""
    tensors = gguf.GGUFReader(source).tensors
    file = _native.GgufFile(str(source))
    paths = []
    for part in range(n_parts):
        values = dict(file.raw_values()) if part == 0 else {}
        values |= {"split.no": unsigned(part), "split.count": unsigned(n_parts)}
        values["split.tensors.count"] = unsigned(n_tensors or len(tensors))
        mine = tensors[part::n_parts]
        plans = [TensorPlan(t.name, tuple(int(n) for n in t.shape), t.tensor_type.name) for t in mine]
        raw = header(values, plans)
        for tensor in mine:
            data = tensor.data.tobytes()
            raw += data + bytes(padding(len(data)))
        paths.append(folder / f"model-{part + 1:05}-of-{n_parts:05}.gguf")
        paths[-1].write_bytes(raw)
    return paths


def test_models_in_parts_are_read_as_one(tmp_path: Path) -> None:
    whole = write_model(tmp_path / "whole.gguf")
    parts = split(whole, tmp_path, 3)
    ids = np.arange(32, dtype=np.int32)
    pool = _native.ThreadPool(1)
    logits = [
        _native.Decoder(_native.GgufFile(str(path)), pool, cache_tokens=64).logits(ids)
        for path in (whole, parts[0])
    ]
    np.testing.assert_array_equal(logits[0], logits[1])
    assert _native.GgufFile(str(parts[0])).n_bytes == sum(part.stat().st_size for part in parts)
    quantize(parts[0], tmp_path / "out.gguf", mixture_named("q4_0"))
    assert len(types_of(tmp_path / "out.gguf")) == len(types_of(whole))
    assert "split.count" not in set(_native.GgufFile(str(tmp_path / "out.gguf")).keys())


def test_broken_sets_of_parts_are_refused(tmp_path: Path) -> None:
    whole = write_model(tmp_path / "whole.gguf")
    parts = split(whole, tmp_path, 3)
    with pytest.raises(_native.GgufError, match=r"is part 2 of 3; give the first, .*-00001-of-00003\.gguf"):
        _native.GgufFile(str(parts[1]))
    other = parts[0].rename(tmp_path / "other.gguf")
    with pytest.raises(_native.GgufError, match=r"its name must end in -00001-of-00003\.gguf"):
        _native.GgufFile(str(other))
    other.rename(parts[0])
    third = parts[2].rename(tmp_path / "third.gguf")
    with pytest.raises(_native.GgufError, match=r"part 3 of 3 is missing: .*model-00003-of-00003\.gguf"):
        _native.GgufFile(str(parts[0]))
    shutil.copy(parts[1], parts[2])
    with pytest.raises(_native.GgufError, match=r"00003-of-00003.gguf is not part 3 of 3"):
        _native.GgufFile(str(parts[0]))
    third.replace(parts[2])
    split(whole, tmp_path, 3, n_tensors=1000)
    with pytest.raises(_native.GgufError, match=r"tensors together; 1000 are expected"):
        _native.GgufFile(str(parts[0]))
