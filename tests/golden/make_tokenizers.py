"""Make small vocabularies of every kind, and the ids that other implementations cut texts into.

Usage, from the repository root, first in an environment with `sentencepiece`, `tokenizers` and
`transformers`, then in Quarry's with the peers' one in .venv-peers:
    python -m tests.golden.make_tokenizers models
    .venv/bin/python -m tests.golden.make_tokenizers ids

Writes tests/data/tokenizers/: `texts.json`; `byte_level.json` (merges) with llama.cpp's ids for each way of
cutting (`byte_level.npz`); `NAME/` with a SentencePiece model and the ids of the library itself, or of
`transformers`. The merges are learned without any cutting, so that they reach over every place where a text
may be cut.
"""

from __future__ import annotations

import io
import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

OUT = Path(__file__).parents[1] / "data" / "tokenizers"
N_MERGES = 900
N_RANDOM = 60
ALPHABET = "aZé中あ가б \t\n\r'1١.,!/_-\u0301\u00a0😀sSmtlL。“…(<|`$^~"
TEXTS = (
    "Hello,world! Hello,  world !\nHello\n,\nworld",
    "あい カタカナー 漢字仓张，。！“”‘’—… ㄅㄆ 가나다 ㄱㅏ",
    "12345678901 1,234.56 ½ Ⅷ ١٢٣ 一二 3rd 1st x2y 007",
    "I'm you're HE'LL they'Ve o'clock 'tis ''s 'S don't DON'T l'eau d'Été",
    "fooBarBaz FOOBar HTMLParser École ÀÉÎ straße",
    "e\u0301 n\u0303o नमस्ते สวัสดี שָלוֹם مرحبًا",
    "a\t\tb\n\n\nc\r\n\r\nd \n e\n \n\n   f   \t g\u00a0\u00a0h\u2003i\u200bk",
    "   leading",
    "trailing   ",
    " \n \n ",
    "\n",
    "    ",
    "a" + " " * 20 + "b" + "\n" * 7 + "c",
    "/path/to/file.txt\n//comment\n/* x */ http://a.b/c?d=e&f=g#h user@example.com",
    "!@#$%^&*()_+-=[]{}|;':\",./<>?`~ \\ $100 +5% <=> ^^ ~~ ||",
    "😀👩\u200d👧 🇨🇳 ❤️ 🏽 ok",
    "\x01\x1f\x7f control",
    "def f(x):\n    return {\"a\": [1, 2.5e-3], 'b': None}\n\n\n# 中文 comment\n",
    "блядь ПРИВЕТ мир",
    "\ufb01 \uff21\uff22\uff01 x",
    " (a) ( b ) [c]  {d}",
    "1 2  3   4    5\n6\t7",
    "雪は白いです。ABC123あい",
    "他说：“你好，世界！”然后走了……",
)
SENTENCEPIECE: dict[str, dict[str, Any]] = {
    "unigram": {"model_type": "unigram", "vocab_size": 420},
    "spm-prefix": {"model_type": "bpe", "vocab_size": 700, "byte_fallback": True, "character_coverage": 0.98},
    "spm-runs": {
        "model_type": "bpe",
        "vocab_size": 700,
        "byte_fallback": True,
        "character_coverage": 0.98,
        "add_dummy_prefix": False,
        "user_defined_symbols": ["\n", "\n\n", "▁▁", "▁▁▁", "▁▁▁▁", "\t"],
    },
}
RULES = (
    "FF01\t21",
    "FF21\t41",
    "FF22\t42",
    "FB01\t66 69",
    "3000\t20",
    "A0\t20",
    "9\t20",
    "A\t20",
    "D\t20",
    "2003\t20",
    "65 301\tE9",
)
"""Of the unigram model's normalization: full width, a ligature, spaces, a letter with its accent."""


def texts() -> list[str]:
    drawn = random.Random(7)
    random_texts = ["".join(drawn.choices(ALPHABET, k=drawn.randrange(2, 24))) for _ in range(N_RANDOM)]
    return [*TEXTS, *random_texts]


def train_sentencepiece(name: str, settings: dict[str, Any]) -> None:
    """Write a model and the ids that the library gives TEXTS."""
    import sentencepiece

    folder = OUT / name
    folder.mkdir(parents=True, exist_ok=True)
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write("\n".join(RULES) + "\n")
        rules.flush()
        is_unigram = settings["model_type"] == "unigram"
        own = (
            {"normalization_rule_tsv": rules.name}
            if is_unigram
            else {
                "normalization_rule_name": "identity",
                "remove_extra_whitespaces": False,
                "allow_whitespace_only_pieces": True,
                "split_digits": True,
            }
        )
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(
                [line for text in texts() for line in text.split("\n") if line.strip()] * 3
            ),
            model_writer=model,
            hard_vocab_limit=False,
            num_threads=1,
            minloglevel=2,
            **settings,
            **own,
        )
    path = folder / ("sentencepiece.bpe.model" if is_unigram else "tokenizer.model")
    path.write_bytes(model.getvalue())
    if is_unigram:
        from transformers import XLMRobertaTokenizer

        cut = XLMRobertaTokenizer.from_pretrained(folder)
        ids = [cut.encode(text, add_special_tokens=False) for text in texts()]
    else:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        ids = [processor.encode(text) for text in texts()]
    (folder / "ids.json").write_text(json.dumps(ids, separators=(",", ":")))


def train_byte_level() -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    trainer = trainers.BpeTrainer(
        vocab_size=256 + N_MERGES,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        min_frequency=1,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(), trainer)
    merges = json.loads(tokenizer.to_str())["model"]["merges"]
    (OUT / "byte_level.json").write_text(json.dumps([" ".join(pair) for pair in merges], ensure_ascii=False))


def write_byte_level_gguf(path: Path, pre: str) -> None:
    """Write a vocabulary-only file of the byte-level merges that names the pre-tokenizer `pre`."""
    import gguf

    from engine.tokenizer_models import byte_alphabet

    merges = json.loads((OUT / "byte_level.json").read_text("utf-8"))
    tokens = [*sorted(byte_alphabet()), *(merge.replace(" ", "") for merge in merges), "<s>", "</s>"]
    tokens = list(dict.fromkeys(tokens))
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (len(tokens) - 2) + [3, 3])
    writer.add_token_merges(merges)
    writer.add_bos_token_id(len(tokens) - 2)
    writer.add_eos_token_id(len(tokens) - 1)
    writer.add_sep_token_id(len(tokens) - 1)
    writer.add_add_bos_token(False)
    # What llama.cpp wants of every file.
    writer.add_context_length(8)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_head_count(1)
    writer.add_feed_forward_length(8)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def ask_llama_cpp() -> None:
    """Write llama.cpp's ids for each pre-tokenizer that it knows and cuts as the models' own files say."""
    from bench.worker import ROOT, BenchError, Worker
    from engine.pre_tokenizers import PRE_TOKENIZERS

    kept: dict[str, np.ndarray] = {}
    python = ROOT / ".venv-peers" / "bin" / "python"
    with tempfile.TemporaryDirectory() as folder, Worker(python, "tests.golden.llama_cpp_answers") as peer:
        for name, cuts in PRE_TOKENIZERS.items():
            if name in APPROXIMATED or not cuts.writes_bytes:
                continue
            path = Path(folder) / f"{name}.gguf"
            write_byte_level_gguf(path, name)
            try:
                ids = peer.ask({"do": "vocabulary", "model": str(path), "texts": texts()})["ids"]
            except BenchError as error:
                print(f"{name}: {error}")
                continue
            kept[name] = np.array([i for row in ids for i in (*row, -1)], np.int16)
    groups: dict[bytes, list[str]] = {}
    for name, ids in kept.items():
        groups.setdefault(ids.tobytes(), []).append(name)
    np.savez_compressed(
        OUT / "byte_level.npz", **{" ".join(names): kept[names[0]] for names in groups.values()}
    )


APPROXIMATED = frozenset(
    (
        *("gpt-4o", "llama4", "kanana2", "talkie", "minimax-m2", "tekken", "kimi-k2", "youtu", "tiny_aya"),
        *("cohere2moe", "granite-embed-multi-97m", "afmoe", "superbpe"),
    )
)
"""llama.cpp has no classes of upper and lower case or of marks in its expressions, or looks behind a cut."""


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["models"]:
            OUT.mkdir(parents=True, exist_ok=True)
            (OUT / "texts.json").write_text(json.dumps(texts(), ensure_ascii=False, indent=0))
            train_byte_level()
            for kind, wanted in SENTENCEPIECE.items():
                train_sentencepiece(kind, wanted)
        case ["ids"]:
            ask_llama_cpp()
        case _:
            sys.exit(__doc__)
