"""Answers without a chat model: which sentences are quoted."""

from rag.citations import Source
from rag.extract import best_sentences
from rag.retriever import Passage


def _source(number: int, text: str, title: str = "Notes") -> Source:
    return Source(
        number, Passage((number,), number, "a.md", title, "default", (), None, text, 1.0, 0.0), text
    )


def _quoted(question: str, *sources: Source) -> list[tuple[int, str]]:
    return best_sentences(question, sources, embedder=None)


def test_article_is_quoted_by_its_number_not_its_heading() -> None:
    lease = "Article 5 Use\n\nOffices only.\n\nArticle 6 Repairs\n\nThe roof is the landlord's."
    assert _quoted("What does art. 6 say?", _source(1, lease)) == [(1, "The roof is the landlord's.")]
    rules = "第十四条\n\n由公安局负责解释。\n\n第十五条\n\n自五月一日起施行。"
    assert _quoted("第15条规定了什么？", _source(1, rules)) == [(1, "自五月一日起施行。")]


def test_what_a_document_is_about_counts_for_its_sentences() -> None:
    sources = (
        _source(1, "Put descaler into the tank.", "KX-300 manual"),
        _source(2, "Insert the cartridge with descaler.", "KX-500 manual"),
    )
    assert _quoted("descaler for the KX-300", *sources)[0] == (1, "Put descaler into the tank.")


def test_row_of_a_table_is_quoted_rather_than_a_label() -> None:
    source = _source(1, "Drip tray\n\n| KP-1003 | drip tray | 18.20 |")
    assert _quoted("drip tray price", source) == [(1, "| KP-1003 | drip tray | 18.20 |")]
