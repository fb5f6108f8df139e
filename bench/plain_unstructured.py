"""The peer of `ingest/read`: unstructured.partition.auto and LangChain's splitter, as their pages show them.

It gets our tokenizer in the place of the spaCy model that it would download, which makes it faster.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import perf_counter


def main() -> None:
    from langchain_text_splitters import RecursiveCharacterTextSplitter
    from unstructured.partition.auto import partition

    from ingest.partition import unstructured_api  # noqa: F401 - puts our tokenizer in place

    splitter = RecursiveCharacterTextSplitter(chunk_size=1200, chunk_overlap=120)
    files = sorted(Path(sys.argv[1]).iterdir())
    seen: set[str] = set()
    for file in files:  # imports are not counted
        if file.suffix not in seen:
            seen.add(file.suffix)
            partition(str(file))
    n_chunks = 0
    start = perf_counter()
    piece, n_pieces = int(sys.argv[2]), int(sys.argv[3])
    for file in files[piece::n_pieces]:
        elements = partition(str(file))
        n_chunks += len(splitter.split_text("\n\n".join(element.text for element in elements)))
    print(json.dumps({"seconds": perf_counter() - start, "n_chunks": n_chunks}))


if __name__ == "__main__":
    main()
