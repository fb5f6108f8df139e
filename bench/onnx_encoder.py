"""onnxruntime on a BERT in GGUF: the same weights as a graph of its own fused operators.

Runs in the peers' environment only. The graph is what onnxruntime's optimiser for transformers arrives at:
one operator each for embedding, attention, residual with norm, and bias with GELU; "int8" is its dynamic
quantisation of that graph.
"""

from __future__ import annotations

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import gguf
import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

FUSED = "com.microsoft"


class OnnxEncoder:
    """One session of onnxruntime."""

    def __init__(self, path: Path, *, int8: bool, per_channel: bool, n_threads: int) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "model.onnx"
            self.n_vocab = _write(path, file)
            if int8:
                exact, file = file, file.with_name("int8.onnx")
                logging.getLogger().setLevel(logging.ERROR)  # it advises what is done already
                quantize_dynamic(
                    exact,
                    file,
                    per_channel=per_channel,
                    weight_type=QuantType.QInt8,
                    # Shape inference does not know the fused operators.
                    extra_options={"DefaultTensorType": TensorProto.FLOAT},
                )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = n_threads
            options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
            self._session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def encode(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the mean-pooled vectors [len(batch), width] of passages of one length, not normalised."""
        ids = np.array(batch, np.int32)
        feeds = {
            "ids": ids,
            "types": np.zeros_like(ids),
            "lengths": np.full(len(ids), ids.shape[1], np.int32),
        }
        return np.asarray(self._session.run(None, feeds)[0])


class _Graph:
    """Collects the nodes and weights of a graph."""

    def __init__(self, path: Path) -> None:
        self._reader = gguf.GGUFReader(path)
        self._tensors = {tensor.name: tensor for tensor in self._reader.tensors}
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def integer(self, key: str) -> int:
        return int(self._reader.fields[f"bert.{key}"].contents())

    def read(self, *names: str) -> NDArray[np.float32]:
        """Return tensors, below one another."""
        found = [self._tensors[name] for name in names]
        return np.concatenate([gguf.quants.dequantize(t.data, t.tensor_type) for t in found])

    def weight(self, *names: str, transposed: bool = False) -> str:
        values = self.read(*names).astype(np.float32)
        label = "+".join(names)
        self.weights.append(
            numpy_helper.from_array(np.ascontiguousarray(values.T if transposed else values), label)
        )
        return label

    def add(self, kind: str, inputs: Sequence[str], output: str, **attributes: object) -> str:
        domain = "" if kind in {"MatMul", "ReduceMean"} else FUSED
        outputs = [output, f"{output}.mask"] if kind == "EmbedLayerNormalization" else [output]
        self.nodes.append(helper.make_node(kind, inputs, outputs, domain=domain, **attributes))
        return output


def _write(source: Path, target: Path) -> int:
    """Write the graph; return the size of the vocabulary."""
    graph = _Graph(source)
    table = graph.weight("token_embd.weight")
    others = [graph.weight(f"{name}.weight") for name in ("position_embd", "token_types", "token_embd_norm")]
    inputs = ["ids", "types", table, *others, graph.weight("token_embd_norm.bias")]
    hidden = graph.add("EmbedLayerNormalization", inputs, "embedded", epsilon=1e-12)
    for i in range(graph.integer("block_count")):
        hidden = _add_layer(graph, hidden, f"blk.{i}.", graph.integer("attention.head_count"))
    output = graph.add("ReduceMean", [hidden], "vectors", axes=[1], keepdims=0)
    width = graph.integer("embedding_length")
    shapes = {"ids": ["n", "length"], "types": ["n", "length"], "lengths": ["n"]}
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "bert",
            [helper.make_tensor_value_info(k, TensorProto.INT32, v) for k, v in shapes.items()],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", width])],
            graph.weights,
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid(FUSED, 1)],
    )
    model.ir_version = 8
    onnx.save(model, target)
    return int(graph.read("token_embd.weight").shape[0])


def _add_layer(graph: _Graph, hidden: str, block: str, n_heads: int) -> str:
    projections = [f"{block}attn_{part}" for part in "qkv"]
    matrices = graph.weight(*(f"{name}.weight" for name in projections), transposed=True)
    biases = graph.weight(*(f"{name}.bias" for name in projections))
    inputs = [hidden, matrices, biases, "lengths"]
    attended = graph.add("Attention", inputs, f"{block}attended", num_heads=n_heads)
    hidden = _add_residual(graph, attended, hidden, f"{block}attn_output", f"{block}attn_output_norm")
    up = graph.weight(f"{block}ffn_up.weight", transposed=True)
    raised = graph.add("MatMul", [hidden, up], f"{block}raised")
    active = graph.add("BiasGelu", [raised, graph.weight(f"{block}ffn_up.bias")], f"{block}active")
    return _add_residual(graph, active, hidden, f"{block}ffn_down", f"{block}layer_output_norm")


def _add_residual(graph: _Graph, x: str, residual: str, matrix: str, norm: str) -> str:
    """Multiply, add the residual and the bias, normalise."""
    product = graph.add("MatMul", [x, graph.weight(f"{matrix}.weight", transposed=True)], f"{matrix}.product")
    inputs = [
        product,
        residual,
        graph.weight(f"{norm}.weight"),
        graph.weight(f"{norm}.bias"),
        graph.weight(f"{matrix}.bias"),
    ]
    return graph.add("SkipLayerNormalization", inputs, f"{norm}.out", epsilon=1e-12)
