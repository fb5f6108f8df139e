"""What embedding models want before a question and before a passage.

Said by the file (the keys below, which our converter writes from config_sentence_transformers.json), else
known by the model's name. Source: the models' cards.
"""

import re
from dataclasses import dataclass

from engine.vocabulary import Metadata, read_str

QUERY_KEY = "quarry.embedding.query_prefix"
DOCUMENT_KEY = "quarry.embedding.document_prefix"

_SEARCH = "Given a web search query, retrieve relevant passages that answer the query"
_BGE_ENGLISH = "Represent this sentence for searching relevant passages: "


@dataclass(frozen=True, slots=True)
class Prompts:
    """Texts that are put before what is embedded."""

    query: str = ""
    document: str = ""


# The first expression that is found in the model's name counts.
_KNOWN: tuple[tuple[str, Prompts], ...] = (
    (r"e5.*instruct|e5-mistral", Prompts(f"Instruct: {_SEARCH}\nQuery: ")),
    (r"(^|-)e5-", Prompts("query: ", "passage: ")),
    (r"bge-(small|base|large)-en", Prompts(_BGE_ENGLISH)),
    (
        r"bge-(small|base|large)-zh",
        Prompts("为这个句子生成表示以用于检索相关文章："),
    ),
    (r"nomic-embed", Prompts("search_query: ", "search_document: ")),
    (r"qwen3-embedding", Prompts(f"Instruct: {_SEARCH}\nQuery:")),
    (r"gte-qwen", Prompts(f"Instruct: {_SEARCH}\nQuery: ")),
    (r"arctic-embed-[a-z]+-v2", Prompts("query: ")),
    (r"arctic-embed|mxbai-embed-large|uae-large", Prompts(_BGE_ENGLISH)),
    (r"modernbert-embed", Prompts("search_query: ", "search_document: ")),
    (r"embedding-?gemma", Prompts("task: search result | query: ", "title: none | text: ")),
)


def find_prompts(file: Metadata, file_name: str) -> Prompts:
    """Return what the file says, else what is known of a model of its name, else nothing.

    Raises: UnsupportedModel where a key is no text.
    """
    query, document = read_str(file, QUERY_KEY), read_str(file, DOCUMENT_KEY)
    if query is not None or document is not None:
        return Prompts(query or "", document or "")
    for name in (file_name, read_str(file, "general.name") or ""):
        slug = re.sub(r"[^a-z0-9]+", "-", name.lower())
        for pattern, prompts in _KNOWN:
            if re.search(pattern, slug):
                return prompts
    return Prompts()
