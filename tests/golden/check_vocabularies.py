"""Cut random texts in many scripts by vocabulary files, here and by llama.cpp, and show where they differ.

    .venv/bin/python -m tests.golden.check_vocabularies [FOLDER [TEXTS [SEED]]]

FOLDER holds GGUF files, such as llama.cpp's own ggml-vocab-*.gguf; for - a file of the golden merges is made
for every pre-tokenizer. Needs the peers' environment in .venv-peers. Known differences: llama.cpp takes one
letter of a character's decomposition (BERT), and the library `tokenizers` drops marks that follow a
full-width letter (Unigram), where `transformers` is followed here.
"""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

from bench.worker import ROOT, BenchError, Worker
from engine._native import GgufFile
from engine.pre_tokenizers import PRE_TOKENIZERS
from engine.tokenizer import load_tokenizer
from tests.golden.make_tokenizers import APPROXIMATED, TEXTS, write_byte_level_gguf

RANGES = (
    *[(0x20, 0x7E)] * 6,
    *(
        (1, 0x20),
        (0xA0, 0x24F),
        (0x300, 0x3FF),
        (0x400, 0x52F),
        (0x590, 0x6FF),
        (0x900, 0x97F),
        (0xE00, 0xE7F),
    ),
    *((0x1100, 0x11FF), (0x2000, 0x21FF), (0x2460, 0x24FF), (0x2E80, 0x30FF), (0x3100, 0x318F)),
    *((0x3400, 0x34FF), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFE30, 0xFFEF)),
    *((0x1D400, 0x1D7FF), (0x1F300, 0x1F64F), (0x20000, 0x2A6DF)),
)
N_SHOWN = 3


def draw_texts(n: int, seed: int) -> list[str]:
    """Draw texts of letters of all scripts, and of words with blanks and digits between."""
    drawn = random.Random(seed)
    words = " ".join(TEXTS).split()
    words += [
        "\n",
        "\n\n",
        "\r\n",
        "  ",
        "\t",
        "'s",
        "'LL",
        "123456",
        "3.14",
        "//",
        "中文",
        "。",
        "İ",
        "ǅ",
        "ß",
    ]

    def letter() -> str:
        return chr(drawn.randint(*drawn.choice(RANGES)))

    def text() -> str:
        if drawn.random() < 0.4:
            return "".join(letter() for _ in range(drawn.randint(1, 24)))
        return "".join(
            drawn.choice(words) + drawn.choice(["", " ", "  ", "\n", letter()])
            for _ in range(drawn.randint(1, 8))
        )

    return [text() for _ in range(n)]


def main(folder: Path, n_texts: int, seed: int) -> None:
    """Print for each file how many texts are cut otherwise, with the first of them."""
    texts = draw_texts(n_texts, seed)
    with Worker(ROOT / ".venv-peers" / "bin" / "python", "tests.golden.llama_cpp_answers") as peer:
        for path in sorted(folder.glob("*.gguf")):
            try:
                expected = peer.ask({"do": "vocabulary", "model": str(path), "texts": texts})["ids"]
            except BenchError as error:
                print(f"{path.name}: {error}")
                continue
            tokenizer = load_tokenizer(GgufFile(str(path)))
            found = [tokenizer.encode(text, add_special=False) for text in texts]
            other = [i for i in range(n_texts) if found[i] != expected[i]]
            print(f"{path.name}: {len(other)} of {n_texts} are cut otherwise", flush=True)
            for i in other[:N_SHOWN]:
                print(f"    {texts[i]!r}\n    here      {found[i]}\n    llama.cpp {expected[i]}")


if __name__ == "__main__":
    where, n_drawn, begin = [*sys.argv[1:], *("-", "2000", "1")[len(sys.argv[1:]) :]]
    with tempfile.TemporaryDirectory() as made:
        if where == "-":
            for name, cuts in PRE_TOKENIZERS.items():
                if name not in APPROXIMATED and cuts.writes_bytes:
                    write_byte_level_gguf(Path(made) / f"{name}.gguf", name)
        main(Path(made if where == "-" else where), int(n_drawn), int(begin))
