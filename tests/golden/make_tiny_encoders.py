"""Make tiny random encoders and rerankers with `transformers`, and golden values for test_encoders.py.

    python tests/golden/make_tiny_encoders.py

Needs: transformers, torch, safetensors, tokenizers, sentencepiece. Writes tests/data/tiny/NAME/ as
make_tiny_models.py does. Golden values: `vector` of the token ids, or `scores` of two pairs.
"""

import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sentencepiece
import torch
from jina_bert import JinaBert
from make_tiny_models import N_VOCAB, OUT, save, spread_weights, write_wordpiece_vocab
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ModernBertConfig,
    ModernBertForSequenceClassification,
    ModernBertModel,
    NomicBertConfig,
    NomicBertModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForCausalLM,
    XLMRobertaConfig,
    XLMRobertaForSequenceClassification,
    XLMRobertaModel,
)

SIZES = {
    "vocab_size": N_VOCAB,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}
XLMR = {**SIZES, "max_position_embeddings": 130, "type_vocab_size": 1, "pad_token_id": 1}
MODERN = {
    **SIZES,
    "num_hidden_layers": 4,
    "local_attention": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    **{f"{name}_token_id": i for i, name in ((2, "bos"), (3, "eos"), (2, "cls"), (3, "sep"))},
}
QWEN3 = {
    **SIZES,
    "tie_word_embeddings": True,
    "num_key_value_heads": 1,
    "head_dim": 32,
    "max_position_embeddings": 1024,
}
QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
JUDGED = [
    ("What is a cat?", "A cat is a small animal."),
    ("\u732b\u662f\u4ec0\u4e48?", " Stones, \n\nand more"),
]
N_TOKENS = 40
SECOND = 13
"""Where the passage of a pair begins."""
SENTENCES = (
    "the cat sat on the mat and looked at the dog",
    "a dog ran over the hill to the river",
    "\u732b\u5750\u5728\u57ab\u5b50\u4e0a",
    "\u72d7\u8dd1\u8fc7\u5c71\u53bb\u6cb3\u8fb9",
    "numbers 1 2 3 4 5 6 7 8 9 0 and signs . , ! ?",
)
# A small table by which the tokenizer normalises: full width to half width, a ligature, spaces.
RULES = (
    "FF01\t21",
    "FF21\t41",
    "FF22\t42",
    "FB01\t66 69",
    "3000\t20",
    "A0\t20",
    "9\t20",
    "A\t20",
    "65 301\tE9",
)


def train_unigram(path: Path) -> None:
    """Write a SentencePiece model of type unigram with its own normalization."""
    rules = path.with_suffix(".tsv")
    rules.write_text("\n".join(RULES) + "\n")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(SENTENCES * 20),
        model_writer=model,
        model_type="unigram",
        vocab_size=110,
        hard_vocab_limit=False,
        normalization_rule_tsv=str(rules),
        num_threads=1,
    )
    rules.unlink()
    path.write_bytes(model.getvalue())


def write_xlmr_tokenizer(folder: Path) -> None:
    """Write XLM-RoBERTa's files around a small model: fairseq's ids, the fast tokenizer, its golden ids."""
    train_unigram(folder / "sentencepiece.bpe.model")


def write_qwen_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer that cuts as Qwen's does, with yes, no and the tokens of a chat."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {text: i for i, text in enumerate([*letters, "ye", "yes", "no"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("y", "e"), ("ye", "s"), ("n", "o")]))
    cuts = pre_tokenizers.Split(Regex(QWEN2_PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [cuts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_bos_token": False}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


def write_bpe_tokenizer(folder: Path) -> None:
    """Write a byte-level tokenizer with BERT's special tokens, as ModernBERT has it."""
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {text: i for i, text in enumerate([*names, *letters, "he"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[("h", "e")], unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens(names)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))


MODELS: dict[str, tuple[Callable[[], PreTrainedModel | JinaBert], Callable[[Path], None]]] = {
    "xlm-roberta-cls": (
        lambda: XLMRobertaModel(XLMRobertaConfig(**XLMR)),
        write_xlmr_tokenizer,
    ),
    "xlm-roberta-rank": (
        lambda: XLMRobertaForSequenceClassification(XLMRobertaConfig(**XLMR, num_labels=1)),
        write_xlmr_tokenizer,
    ),
    "bert-rank": (
        lambda: BertForSequenceClassification(BertConfig(**SIZES, max_position_embeddings=128, num_labels=1)),
        write_wordpiece_vocab,
    ),
    "modern-bert-cls": (lambda: ModernBertModel(ModernBertConfig(**MODERN)), write_bpe_tokenizer),
    **{
        f"modern-bert-{pooling}-rank": (
            lambda pooling=pooling: ModernBertForSequenceClassification(
                ModernBertConfig(**MODERN, num_labels=1, classifier_pooling=pooling)
            ),
            write_bpe_tokenizer,
        )
        for pooling in ("cls", "mean")
    },
    "jina-bert-mean": (lambda: JinaBert(**(SIZES | {"num_attention_heads": 3})), write_wordpiece_vocab),
    "jina-bert-code-mean": (lambda: JinaBert(**SIZES, is_code=True), write_wordpiece_vocab),
    "decoder-qwen3-last": (lambda: Qwen3ForCausalLM(Qwen3Config(**QWEN3)), write_qwen_tokenizer),
    "decoder-qwen3-judge": (lambda: Qwen3ForCausalLM(Qwen3Config(**QWEN3)), write_qwen_tokenizer),
    "nomic-bert-mean": (lambda: NomicBertModel(NomicBertConfig(**SIZES)), write_wordpiece_vocab),
}
MODULES = ("Transformer", "Pooling", "Normalize")
POOLING = {
    "last": "pooling_mode_lasttoken",
    "cls": "pooling_mode_cls_token",
    "mean": "pooling_mode_mean_tokens",
}


def judge(model: PreTrainedModel, folder: Path) -> np.ndarray:
    """Score pairs as the card of Qwen3-Reranker does."""
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    before = (
        "<|im_start|>system\nJudge whether the Document meets the requirements based on the Query and the "
        'Instruct provided. Note that the answer can only be "yes" or "no".<|im_end|>\n<|im_start|>user\n'
    )
    after = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"
    task = "Given a web search query, retrieve relevant passages that answer the query"
    scores = []
    for query, passage in JUDGED:
        text = f"<Instruct>: {task}\n<Query>: {query}\n<Document>: {passage}"
        ids = [i for part in (before, text, after) for i in tokenizer.encode(part, add_special_tokens=False)]
        with torch.no_grad():
            logits = model(torch.tensor([ids])).logits[0, -1]
        both = logits[[tokenizer.convert_tokens_to_ids(word) for word in ("no", "yes")]]
        scores.append(float(both.softmax(0)[1]))
    return np.array(scores, np.float32)


def golden(model: PreTrainedModel | JinaBert, ids: torch.Tensor, pooling: str) -> dict[str, np.ndarray]:
    """Compute what the engine must compute."""
    tokens = ids.numpy().astype(np.int32)
    with torch.no_grad():
        if pooling == "rank":
            types = torch.zeros_like(ids)
            types[:, SECOND:] = 1
            has_types = getattr(model.config, "type_vocab_size", 1) > 1
            scores = model(ids, **({"token_type_ids": types} if has_types else {})).logits[:, 0]
            return {"token_ids": tokens, "scores": scores.numpy()}
        if isinstance(model, Qwen3ForCausalLM):
            model = model.model
        is_plain = isinstance(model, JinaBert)
        states = model(ids[0]) if is_plain else model(ids[:1]).last_hidden_state[0]
    vector = {"mean": states.mean(0), "cls": states[0], "last": states[-1]}[pooling]
    return {"token_ids": tokens[:1], "vector": torch.nn.functional.normalize(vector, dim=0).numpy()}


def main() -> None:
    """Write every model, its tokenizer and its golden values."""
    torch.manual_seed(20260102)
    ids = torch.randint(5, 100, (2, N_TOKENS))
    for name, (make, write_tokenizer) in MODELS.items():
        folder, pooling = OUT / name, name.rpartition("-")[2]
        model = make().eval()
        spread_weights(model)
        if isinstance(model, JinaBert):
            model.save(folder)
        else:
            save(model, folder)
        write_tokenizer(folder)
        if pooling in POOLING:
            (folder / "1_Pooling").mkdir()
            (folder / "1_Pooling" / "config.json").write_text(json.dumps({POOLING[pooling]: True}))
            modules = [{"type": f"sentence_transformers.models.{kind}"} for kind in MODULES]
            (folder / "modules.json").write_text(json.dumps(modules))
        if pooling == "judge":
            np.savez_compressed(folder / "golden.npz", judged=judge(model, folder))
        else:
            np.savez_compressed(folder / "golden.npz", **golden(model, ids, pooling))


if __name__ == "__main__":
    main()
