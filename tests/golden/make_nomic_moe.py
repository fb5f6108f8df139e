"""Make a tiny random nomic-bert-moe file, and the vector that llama.cpp gives for it.

Usage, from the repository root, in Quarry's environment, with the peers' one in .venv-peers:
    .venv/bin/python -m tests.golden.make_nomic_moe

Writes tests/data/nomic-bert-moe/. `transformers` has no class for models with experts of this kind.
"""

from __future__ import annotations

import gguf
import numpy as np

from bench.worker import ROOT, Worker

OUT = ROOT / "tests" / "data" / "nomic-bert-moe"
N_VOCAB, WIDTH, FEED_FORWARD, N_LAYERS, N_HEADS, N_EXPERTS, N_USED = 64, 32, 48, 2, 2, 4, 2
N_TOKENS = 30


def write_model() -> None:
    """Write weights as F32, large enough for the experts to matter."""
    random = np.random.default_rng(5)
    writer = gguf.GGUFWriter(OUT / "model.gguf", "nomic-bert-moe")
    writer.add_context_length(64)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(N_LAYERS)
    writer.add_feed_forward_length(FEED_FORWARD)
    writer.add_head_count(N_HEADS)
    writer.add_layer_norm_eps(1e-5)
    writer.add_causal_attention(False)
    writer.add_pooling_type(gguf.PoolingType.MEAN)
    writer.add_rope_freq_base(10000.0)
    writer.add_expert_count(N_EXPERTS)
    writer.add_expert_used_count(N_USED)
    writer.add_moe_every_n_layers(2)
    writer.add_tokenizer_model("bert")
    writer.add_token_list(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *(f"\u2581w{i}" for i in range(N_VOCAB - 4))])
    writer.add_token_types([3] * 4 + [1] * (N_VOCAB - 4))
    writer.add_token_type_count(1)
    for name, token_id in (("pad", 0), ("unk", 1), ("bos", 2), ("sep", 3)):
        getattr(writer, f"add_{name}_token_id")(token_id)

    def add(name: str, *shape: int, around: float = 0.0) -> None:
        scale = 0.1 if len(shape) == 1 else 1 / shape[-1] ** 0.5
        writer.add_tensor(name, random.normal(around, scale, shape).astype(np.float32))

    add("token_embd.weight", N_VOCAB, WIDTH)
    add("token_types.weight", 1, WIDTH)
    norms = ["token_embd_norm"]
    for i in range(N_LAYERS):
        layer = f"blk.{i}."
        norms += [f"{layer}attn_output_norm", f"{layer}layer_output_norm"]
        add(f"{layer}attn_qkv.weight", 3 * WIDTH, WIDTH)
        add(f"{layer}attn_qkv.bias", 3 * WIDTH)
        add(f"{layer}attn_output.weight", WIDTH, WIDTH)
        add(f"{layer}attn_output.bias", WIDTH)
        if i % 2 == 1:
            add(f"{layer}ffn_gate_inp.weight", N_EXPERTS, WIDTH)
            add(f"{layer}ffn_up_exps.weight", N_EXPERTS, FEED_FORWARD, WIDTH)
            add(f"{layer}ffn_down_exps.weight", N_EXPERTS, WIDTH, FEED_FORWARD)
        else:
            add(f"{layer}ffn_up.weight", FEED_FORWARD, WIDTH)
            add(f"{layer}ffn_up.bias", FEED_FORWARD)
            add(f"{layer}ffn_down.weight", WIDTH, FEED_FORWARD)
            add(f"{layer}ffn_down.bias", WIDTH)
    for norm in norms:
        add(f"{norm}.weight", WIDTH, around=1.0)
        add(f"{norm}.bias", WIDTH)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    write_model()
    ids = np.random.default_rng(6).integers(4, N_VOCAB, N_TOKENS).astype(np.int32)
    python = ROOT / ".venv-peers" / "bin" / "python"
    with Worker(python, "tests.golden.llama_cpp_answers") as peer:
        question = {"do": "embed", "model": str(OUT / "model.gguf"), "ids": [ids.tolist()]}
        (vector,) = peer.ask(question)["vectors"]
    np.savez_compressed(OUT / "golden.npz", token_ids=ids, vector=np.array(vector, np.float32))


if __name__ == "__main__":
    main()
