"""Write the documents and questions of both languages into a folder, ready for `quarry eval`.

    python -m bench.questions OUT [--among FOLDER]

OUT/en and OUT/zh each get documents/, development.jsonl and held-out.jsonl. --among: a folder of other
documents to bury them in, copied beside them.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path

from bench.questions.formats import write
from bench.questions.source import read


def build(out: Path, language: str, among: Path | None) -> None:
    """Write one language's documents and its two files of questions."""
    sources, asked = read(language)
    documents = out / "documents"
    for source in sources:
        path = documents / source.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(write(source.text, source.path))
    if among is not None:
        shutil.copytree(among, documents / "among", dirs_exist_ok=True)
    for half in ("development", "held-out"):
        lines = [json.dumps(a.as_json(), ensure_ascii=False) for a in asked if a.half == half]
        (out / f"{half}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.questions", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--among", type=Path)
    arguments = parser.parse_args()
    for language in ("en", "zh"):
        build(arguments.out / language, language, arguments.among)


main()
