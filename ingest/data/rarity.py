"""Write rarity.txt from jieba's dict.txt (MIT; Debian's python3-jieba 0.42.1), given as argument."""

import math
import re
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

HEAD = "# How rare Chinese characters and pairs are, from the word counts of jieba, (c) Sun Junyi, MIT."
_HAN = re.compile(r"[\u3400-\u9fff]+")
_LEAST = 300
"""Occurrences, of 60 million words: what is rarer counts as unknown."""


def main() -> None:
    """Write a line for each half nat: twice the rarity, the characters of it, the pairs of it."""
    counts: Counter[str] = Counter()
    total = 0
    for line in Path(sys.argv[1]).read_text("utf-8").splitlines():
        word, said, _ = line.rsplit(" ", 2)
        if _HAN.fullmatch(word):
            total += int(said)
            for term in (*word, *map("".join, pairwise(word))):
                counts[term] += int(said)
    levels: dict[int, list[str]] = {}
    for term, n in sorted(counts.items()):
        if n >= _LEAST:
            levels.setdefault(round(2 * math.log(total / n)), []).append(term)
    lines = [
        " ".join([str(level), *("".join(t for t in terms if len(t) == n) for n in (1, 2))])
        for level, terms in sorted(levels.items())
    ]
    Path(__file__).with_suffix(".txt").write_text("\n".join([HEAD, *lines, ""]), "utf-8")


if __name__ == "__main__":
    main()
