"""Folders to GGUF: metadata as llama.cpp reads it, values exact, bad folders refused by name."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from engine.convert import TensorType, convert
from engine.convert_bpe import find_pre
from engine.convert_vocab import write_vocab
from engine.errors import ConversionError
from engine.pre_tokenizers import GPT2_PATTERN, PRE_TOKENIZERS
from engine.sentencepiece_model import read_sentencepiece
from engine.tokenizer import load_tokenizer
from tests.engine.gguf_metadata import read_metadata

TINY = Path(__file__).parents[1] / "data" / "tiny"


@pytest.fixture
def llama_folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(TINY / "llama-gqa-untied", tmp_path / "model"))


def edit_json(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def tensors_of(path: Path) -> dict[str, np.ndarray]:
    return {t.name: gguf.dequantize(t.data, t.tensor_type) for t in gguf.GGUFReader(path).tensors}


def test_llama_metadata(llama_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.gguf"
    convert(llama_folder, out, tensor_type="F32")
    metadata = read_metadata(out)
    expected = {
        "general.architecture": "llama",
        "llama.block_count": 2,
        "llama.context_length": 256,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.rope.dimension_count": 16,
        "llama.rope.freq_base": 10000.0,
        "llama.vocab_size": 288,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "gpt-2",
        "tokenizer.ggml.add_bos_token": False,
    }
    assert expected.items() <= metadata.items()
    assert list(tmp_path.glob("*.part")) == []


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param("llama-rope-linear", {"llama.rope.scaling.type": "linear"}, id="linear"),
        pytest.param(
            "llama-rope-yarn",
            {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.original_context_length": 16},
            id="yarn",
        ),
        pytest.param("bert-mean", {"bert.pooling_type": 1, "bert.attention.causal": False}, id="mean"),
        pytest.param("bert-cls", {"bert.pooling_type": 2, "tokenizer.ggml.bos_token_id": 2}, id="cls"),
    ],
)
def test_architecture_keys(name: str, expected: dict[str, object], tmp_path: Path) -> None:
    convert(TINY / name, tmp_path / "out.gguf", tensor_type="F32")
    assert expected.items() <= read_metadata(tmp_path / "out.gguf").items()


def test_llama3_frequency_factors(tmp_path: Path) -> None:
    convert(TINY / "llama-rope-llama3", tmp_path / "out.gguf", tensor_type="F16")
    factors = tensors_of(tmp_path / "out.gguf")["rope_freqs.weight"]
    assert factors.shape == (8,)
    assert factors[0] == 1.0
    assert factors[-1] == 8.0
    assert np.all(np.diff(factors) >= 0)


def test_query_rows_are_paired(llama_folder: Path, tmp_path: Path) -> None:
    folder = TINY / "qwen2"
    convert(folder, tmp_path / "qwen.gguf", tensor_type="F32")
    convert(llama_folder, tmp_path / "llama.gguf", tensor_type="F32")
    query = tensors_of(tmp_path / "llama.gguf")["blk.0.attn_q.weight"]
    header = (llama_folder / "model.safetensors").read_bytes()
    assert header[8:9] == b"{"
    raw = read_bf16(llama_folder / "model.safetensors", "model.layers.0.self_attn.q_proj.weight")
    # head_dim 16: rows 0 and 8 of a head turn together; GGUF has them next to each other.
    np.testing.assert_array_equal(query[:4], raw[[0, 8, 1, 9]])
    unturned = tensors_of(tmp_path / "qwen.gguf")["blk.0.attn_q.weight"]
    raw = read_bf16(folder / "model.safetensors", "model.layers.0.self_attn.q_proj.weight")
    np.testing.assert_array_equal(unturned, raw)


def read_bf16(path: Path, name: str) -> np.ndarray:
    """Read a BF16 tensor by hand."""
    data = path.read_bytes()
    (n_header,) = struct.unpack("<Q", data[:8])
    entry = json.loads(data[8 : 8 + n_header])[name]
    begin, end = entry["data_offsets"]
    raw = np.frombuffer(data[8 + n_header + begin : 8 + n_header + end], "<u2").astype(np.uint32)
    return (raw << 16).view(np.float32).reshape(entry["shape"])


@pytest.mark.parametrize(
    ("tensor_type", "tolerance"),
    [("F32", 0.0), ("BF16", 0.0), ("F16", 2e-3), ("Q8_0", 0.02)],
    ids=["F32", "BF16", "F16", "Q8_0"],
)
def test_values_survive(
    tensor_type: TensorType, tolerance: float, llama_folder: Path, tmp_path: Path
) -> None:
    convert(llama_folder, tmp_path / "out.gguf", tensor_type=tensor_type)
    raw = read_bf16(llama_folder / "model.safetensors", "model.layers.1.mlp.down_proj.weight")
    found = tensors_of(tmp_path / "out.gguf")["blk.1.ffn_down.weight"]
    assert np.abs(found - raw).max() <= tolerance * np.abs(raw).max()
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert types["blk.1.ffn_down.weight"] == tensor_type
    assert types["blk.1.ffn_norm.weight"] == "F32"


def test_rows_that_blocks_do_not_divide_become_f16(tmp_path: Path) -> None:
    convert(TINY / "llama-odd-width", tmp_path / "out.gguf", tensor_type="Q8_0")
    types = {t.name: t.tensor_type.name for t in gguf.GGUFReader(tmp_path / "out.gguf").tensors}
    assert types["blk.0.attn_q.weight"] == "F16"


def test_shards_are_joined(llama_folder: Path, tmp_path: Path) -> None:
    convert(llama_folder, tmp_path / "whole.gguf", tensor_type="F32")
    names = [t.name for t in gguf.GGUFReader(tmp_path / "whole.gguf").tensors]
    raw = {n: read_bf16(llama_folder / "model.safetensors", n) for n in header_names(llama_folder)}
    (llama_folder / "model.safetensors").unlink()
    weight_map = {}
    for i, name in enumerate(raw):
        shard = f"model-{i % 2}.safetensors"
        weight_map[name] = shard
    for shard in sorted(set(weight_map.values())):
        save_file({n: v for n, v in raw.items() if weight_map[n] == shard}, llama_folder / shard)
    (llama_folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    convert(llama_folder, tmp_path / "sharded.gguf", tensor_type="F32")
    whole, sharded = tensors_of(tmp_path / "whole.gguf"), tensors_of(tmp_path / "sharded.gguf")
    assert set(names) == set(sharded)
    for name, values in whole.items():
        np.testing.assert_array_equal(values, sharded[name])


def header_names(folder: Path) -> list[str]:
    data = (folder / "model.safetensors").read_bytes()
    (n_header,) = struct.unpack("<Q", data[:8])
    return [n for n in json.loads(data[8 : 8 + n_header]) if n != "__metadata__"]


def test_converted_tokenizer_is_the_folders(tmp_path: Path) -> None:
    convert(TINY / "llama-tied", tmp_path / "out.gguf")
    tokenizer = load_tokenizer(read_metadata(tmp_path / "out.gguf"))
    assert tokenizer.encode("he") == [256]
    assert tokenizer.decode(tokenizer.encode("\u00e9 \u4e16")) == "\u00e9 \u4e16"
    convert(TINY / "bert-cls", tmp_path / "bert.gguf")
    assert load_tokenizer(read_metadata(tmp_path / "bert.gguf")).encode("Ab") == [2, 43, 112, 3]


def sentencepiece_file(pieces: list[tuple[str, float, int]]) -> bytes:
    """Encode a SentencePiece BPE model by hand."""
    out = b""
    for text, score, kind in pieces:
        raw = text.encode()
        body = (
            b"\x0a" + bytes([len(raw)]) + raw + b"\x15" + struct.pack("<f", score) + b"\x18" + bytes([kind])
        )
        out += b"\x0a" + bytes([len(body)]) + body
    return out + b"\x12\x02\x18\x02" + b"\x1a\x02\x18\x01"


def test_sentencepiece_model(llama_folder: Path, tmp_path: Path) -> None:
    (llama_folder / "tokenizer.json").unlink()
    bytes_ = [(f"<0x{b:02X}>", 0.0, 6) for b in range(256)]
    words = [("\u2581", -3.0, 1), ("h", -4.0, 1), ("i", -5.0, 1), ("\u2581h", -1.0, 1), ("\u2581hi", -2.0, 1)]
    specials = [("<unk>", 0.0, 2), ("<s>", 0.0, 3), ("</s>", 0.0, 3)]
    (llama_folder / "tokenizer.model").write_bytes(sentencepiece_file(specials + bytes_ + words))
    convert(llama_folder, tmp_path / "out.gguf")
    tokenizer = load_tokenizer(read_metadata(tmp_path / "out.gguf"))
    assert tokenizer.encode("hi\u4e16", add_special=False) == [263, *(3 + b for b in "\u4e16".encode())]


@pytest.mark.parametrize("name", ["qwen2", "llama-bpe", "gpt-4o", "tekken", "deepseek-v3", "qwen35", "bloom"])
def test_pre_tokenizer_is_recognised_by_its_expressions(name: str) -> None:
    steps: list[dict[str, Any]] = [
        {"type": "Split", "pattern": {"Regex": p}, "behavior": "Isolated"}
        for p in PRE_TOKENIZERS[name].patterns
    ]
    steps.append({"type": "ByteLevel", "use_regex": False})
    ignores = PRE_TOKENIZERS[name].ignore_merges
    tokenizer = {
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "model": {"ignore_merges": ignores},
    }
    assert find_pre(tokenizer) == name


def test_digits_step_means_smollm() -> None:
    steps = [{"type": "Digits", "individual_digits": True}, {"type": "ByteLevel"}]
    assert PRE_TOKENIZERS["smollm"].patterns == (r"\p{N}", GPT2_PATTERN)
    assert find_pre({"pre_tokenizer": {"type": "Sequence", "pretokenizers": steps}}) == "smollm"


def _config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", **changes)


def _drop(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, data: bytes) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(data)

    return apply


def _one_tensor_less(folder: Path) -> None:
    raw = {n: read_bf16(folder / "model.safetensors", n) for n in header_names(folder)}
    del raw["model.layers.1.self_attn.v_proj.weight"]
    save_file(raw, folder / "model.safetensors")


def _one_tensor_more(folder: Path) -> None:
    raw = {n: read_bf16(folder / "model.safetensors", n) for n in header_names(folder)}
    save_file(
        raw | {"model.layers.0.mystery.weight": np.zeros((2, 2), np.float32)}, folder / "model.safetensors"
    )


def _integer_tensor(folder: Path) -> None:
    save_file({"model.norm.weight": np.zeros(64, np.int32)}, folder / "model.safetensors")
    assert load_file(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        pytest.param(_drop("config.json"), "config.json is missing", id="no-config"),
        pytest.param(_write("config.json", b"[1]"), "holds a list", id="config-no-object"),
        pytest.param(_write("config.json", b"{"), "cannot be read", id="config-broken"),
        pytest.param(_config(architectures=["MambaForCausalLM"]), "'MambaForCausalLM'", id="architecture"),
        pytest.param(_config(architectures=None), "architecture None", id="no-architecture"),
        pytest.param(_config(hidden_size="64"), "hidden_size '64'", id="size-a-text"),
        pytest.param(_config(num_hidden_layers=10**9), "num_hidden_layers 1000000000", id="layers-huge"),
        pytest.param(_config(num_key_value_heads=3), "no multiple", id="heads-do-not-divide"),
        pytest.param(_config(head_dim=15), "15 of head_dim 15", id="odd-head"),
        pytest.param(_config(hidden_size=128), "config.json makes it", id="shape-mismatch"),
        pytest.param(_config(vocab_size=100), "outside the vocab_size 100|makes it", id="vocab-too-small"),
        pytest.param(_config(hidden_act="gelu"), "hidden_act is 'gelu'", id="activation"),
        pytest.param(_config(rope_parameters={"rope_type": "other"}), "'other'", id="rope-type"),
        pytest.param(_config(quantization_config={"bits": 4}), "quantization_config", id="quantised"),
        pytest.param(
            _drop("model.safetensors"), "neither model.safetensors, pytorch_model.bin", id="no-weights"
        ),
        pytest.param(_write("model.safetensors", b"\xff" * 64), "has a header of", id="header-too-long"),
        pytest.param(_write("model.safetensors", b"abc"), "has a header of", id="weights-cut-off"),
        pytest.param(
            _write("model.safetensors", struct.pack("<Q", 4) + b"nope"), "cannot be read", id="no-json"
        ),
        pytest.param(
            _write("model.safetensors.index.json", b'{"weight_map": {"a": "../x.safetensors"}}'),
            "not a plain file name",
            id="shard-outside",
        ),
        pytest.param(_one_tensor_less, r"blk.1.attn_v.weight is missing", id="tensor-missing"),
        pytest.param(
            _one_tensor_more, "mystery.weight is not one of a LlamaForCausalLM", id="tensor-unknown"
        ),
        pytest.param(_drop("tokenizer.json"), "neither tokenizer.model nor", id="no-tokenizer"),
        pytest.param(
            _write("tokenizer.model", b"\x00\x01"), "no SentencePiece model", id="bad-sentencepiece"
        ),
    ],
)
def test_bad_folders_are_refused_by_name(
    spoil: Callable[[Path], None], message: str, llama_folder: Path, tmp_path: Path
) -> None:
    spoil(llama_folder)
    with pytest.raises(ConversionError, match=message):
        convert(llama_folder, tmp_path / "out.gguf")
    assert not list(tmp_path.glob("out.gguf*"))


def test_integer_weights_are_refused(llama_folder: Path, tmp_path: Path) -> None:
    _integer_tensor(llama_folder)
    with pytest.raises(ConversionError, match=r"is missing|I32"):
        convert(llama_folder, tmp_path / "out.gguf")


@pytest.mark.parametrize("name", ["config.json", "nowhere"], ids=["a-file", "absent"])
def test_what_is_no_folder_is_named(name: str, llama_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConversionError, match=rf"{name} is (a file|not there); a Hugging Face folder"):
        convert(llama_folder / name, tmp_path / "out.gguf")


def test_unwritable_target_leaves_nothing(llama_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="nowhere"):
        convert(llama_folder, tmp_path / "nowhere" / "out.gguf")


def test_progress_names_every_tensor(llama_folder: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int, str]] = []
    convert(
        llama_folder,
        tmp_path / "out.gguf",
        progress=lambda done, total, label: seen.append((done, total, label)),
    )
    assert seen[0][0] == 0
    assert seen[-1][0] == seen[-1][1] == len(seen) - 1


def test_prompts_of_an_embedding_model(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY / "bert-mean", tmp_path / "model"))
    prompts = {"query": "ask: ", "document": "", "passage": "told: ", "other": "x"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    convert(folder, tmp_path / "out.gguf")
    metadata = read_metadata(tmp_path / "out.gguf")
    assert metadata["quarry.embedding.query_prefix"] == "ask: "
    assert metadata["quarry.embedding.document_prefix"] == "told: "


def test_layers_after_the_pooling_are_refused(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY / "bert-mean", tmp_path / "model"))
    kinds = ["Transformer", "Pooling", "Dense"]
    modules = [{"idx": i, "type": f"sentence_transformers.models.{kind}"} for i, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ConversionError, match="has a module Dense; supported are Transformer, Pooling"):
        convert(folder, tmp_path / "out.gguf")


def test_a_reranker_holds_the_head_that_llama_cpp_scores_with(tmp_path: Path) -> None:
    folder = Path(shutil.copytree(TINY / "decoder-qwen3-judge", tmp_path / "Qwen3-Reranker-tiny"))
    convert(folder, tmp_path / "judge.gguf", tensor_type="F32")
    metadata, tensors = read_metadata(tmp_path / "judge.gguf"), tensors_of(tmp_path / "judge.gguf")
    words = json.loads((folder / "tokenizer.json").read_text())["model"]["vocab"]
    expected = tensors["token_embd.weight"][[words["yes"], words["no"]]]
    np.testing.assert_array_equal(tensors["cls.output.weight"], expected)
    assert metadata["qwen3.classifier.output_labels"] == ["yes", "no"]
    assert metadata["qwen3.pooling_type"] == gguf.PoolingType.RANK
    assert "{query}" in metadata["tokenizer.chat_template.rerank"]
    edit_json(folder / "tokenizer.json", model={"type": "BPE", "vocab": {"a": 0}, "merges": []})
    with pytest.raises(ConversionError, match="no token 'yes'"):
        convert(folder, tmp_path / "judge.gguf", tensor_type="F32")


@pytest.mark.parametrize(
    ("name", "code", "expected"),
    [
        pytest.param("chatglm3-6b", None, 9, id="third"),
        pytest.param("chatglm2-6b", None, 5, id="second-by-name"),
        pytest.param("model", "special = ['sop']", 5, id="second-by-its-code"),
        pytest.param("model", "special = ['<|system|>']", 9, id="third-by-its-code"),
    ],
)
def test_older_folders_of_chatglm_get_the_tokens_of_its_code(
    name: str, code: str | None, expected: int, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(TINY / "chatglm", tmp_path / name))
    for other in folder.glob("tokenizer*"):
        other.unlink()
    model = (TINY.parent / "tokenizers" / "spm-prefix" / "tokenizer.model").read_bytes()
    (folder / "tokenizer.model").write_bytes(model)
    edit_json(folder / "config.json", padded_vocab_size=288)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "ChatGLMTokenizer"}')
    if code is not None:
        (folder / "tokenization_chatglm.py").write_text(code)
    vocab = {"writer": gguf.GGUFWriter(tmp_path / "vocab.gguf", "chatglm"), "folder": folder}
    write_vocab(**vocab, kind="causal", n_vocab=720)
    vocab["writer"].write_header_to_file()
    vocab["writer"].write_kv_data_to_file()
    vocab["writer"].close()
    metadata = read_metadata(tmp_path / "vocab.gguf")
    n_pieces = len(read_sentencepiece(folder / "tokenizer.model").pieces)
    names = ["[MASK]", "[gMASK]", "[sMASK]", "sop", "eop"]
    names += ["<|system|>", "<|user|>", "<|assistant|>", "<|observation|>"]
    tokens = metadata["tokenizer.ggml.tokens"]
    assert tokens[n_pieces : n_pieces + expected] == names[:expected]
    assert tokens[n_pieces + expected].startswith("[PAD")
    tokenizer = load_tokenizer(metadata)
    assert tokenizer.encode("[gMASK]sop", parse_special=True) == [n_pieces + 1, n_pieces + 3]
    assert (n_pieces + 6 in tokenizer.eos_ids) == (expected == 9)


@pytest.mark.parametrize(
    ("normalizer", "expected"),
    [
        pytest.param({"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}, False, id="gemma"),
        pytest.param(
            {
                "type": "Sequence",
                "normalizers": [
                    {"type": "Prepend", "prepend": "\u2581"},
                    {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
                ],
            },
            True,
            id="llama",
        ),
    ],
)
def test_a_folder_without_its_model_file_tells_whether_a_space_comes_first(
    normalizer: dict[str, object], expected: bool, llama_folder: Path, tmp_path: Path
) -> None:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "\u2581", "a", "\u2581a"]
    model = {
        "type": "BPE",
        "vocab": {text: i for i, text in enumerate(pieces)},
        "merges": ["\u2581 a"],
        "byte_fallback": True,
        "unk_token": "<unk>",
    }
    (llama_folder / "tokenizer.json").write_text(json.dumps({"model": model, "normalizer": normalizer}))
    convert(llama_folder, tmp_path / "out.gguf", tensor_type="F32")
    metadata = read_metadata(tmp_path / "out.gguf")
    assert metadata["tokenizer.ggml.add_space_prefix"] is expected
    ids = load_tokenizer(metadata).encode("a", add_special=False)
    assert ids == ([261] if expected else [260])
