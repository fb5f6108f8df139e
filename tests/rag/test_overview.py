"""Questions about documents as a whole: recognised, and answered from the record."""

from typing import Any

import pytest

from engine.chat_model import GenerationParams
from ingest.values import DocumentInfo
from rag.answer import answer
from rag.asking import Ask, Parts
from rag.events import End, Retrieved, Text, Thought
from rag.models import Target
from rag.overview import find_changes, find_document, find_mentions, recognise
from rag.prompt_files import load_prompts
from rag.retriever import Retriever


def info(path: str, title: str = "", number: int = 1) -> DocumentInfo:
    return DocumentInfo(number, path, "default", title or path, "indexed", 1, 3, 100, None, 0, 10, -number)


MAY, JUNE = info("contracts/lease-may.pdf", "Lease agreement May"), info("contracts/lease-june.pdf", number=2)
HANDBOOK = info("人事/员工手册.docx", "员工手册", 3)
DOCUMENTS = [MAY, JUNE, HANDBOOK]


@pytest.mark.parametrize(
    ("question", "kind", "found"),
    [
        pytest.param("Summarise the May lease.", "summary", [MAY], id="summary"),
        pytest.param("Can you summarize lease-june.pdf?", "summary", [JUNE], id="summary by name"),
        pytest.param("请总结一下《员工手册》", "summary", [HANDBOOK], id="summary in Chinese"),
        pytest.param("员工手册主要讲了什么？", "summary", [HANDBOOK], id="what it says, in Chinese"),
        pytest.param("What changed between lease-may and lease-june?", "changes", [MAY, JUNE], id="changes"),
        pytest.param("Compare lease-june.pdf with lease-may.pdf", "changes", [JUNE, MAY], id="order is kept"),
        pytest.param("lease-may 和 lease-june 有什么区别？", "changes", [MAY, JUNE], id="changes in Chinese"),
        pytest.param("Which documents are there?", "listing", DOCUMENTS, id="listing"),
        pytest.param("有哪些文件？", "listing", DOCUMENTS, id="listing in Chinese"),
        pytest.param("Which files mention Acme Ltd?", "mentions", [], id="mentions"),
        pytest.param("哪些合同提到了“钢材公司”？", "mentions", [], id="mentions in Chinese"),
    ],
)  # fmt: skip
def test_recognised(question: str, kind: str, found: list[DocumentInfo]) -> None:
    overview = recognise(question, lambda: DOCUMENTS)
    assert overview is not None
    assert overview.kind == kind
    assert list(overview.documents) == found


@pytest.mark.parametrize(
    "question",
    [
        "When does the lease end?",
        "Summarise the rules about holidays",
        "Summarise the lease",  # both
        "What is the difference between gross and net pay?",
        "哪些员工享有年假？",
        "总结会议怎么安排？",
        "",
    ],
)
def test_ordinary_questions_stay_ordinary(question: str) -> None:
    assert recognise(question, lambda: DOCUMENTS) is None


OLD, NEW = info("terms/conditions-v9.md", number=5), info("terms/conditions-v10.md", number=6)


@pytest.mark.parametrize(
    ("question", "documents", "found"),
    [
        pytest.param("What changed between these two versions?", [NEW, OLD], [OLD, NEW], id="all there are"),
        pytest.param("What changed between the two versions of the conditions?", [NEW, MAY, OLD], [OLD, NEW],
                     id="by what both are called"),
        pytest.param("What are the differences between both versions of conditions?", [NEW, MAY, OLD],
                     [OLD, NEW], id="differences"),
        pytest.param("Compare the two versions of the lease", [MAY, JUNE, OLD], [JUNE, MAY], id="by time"),
        pytest.param("这两个版本有什么不同？", [NEW, OLD], [OLD, NEW], id="chinese"),
        pytest.param("conditions的两个版本有哪些区别？", [NEW, MAY, OLD], [OLD, NEW], id="chinese, named"),
        pytest.param("What changed between these two versions?", DOCUMENTS, None, id="three are no pair"),
        pytest.param("What changed between the two versions of Python?", [NEW, OLD], None, id="no such name"),
        pytest.param("新旧两个版本有什么不同？", [MAY], None, id="one is no pair"),
    ],
)  # fmt: skip
def test_two_versions_are_found_by_what_they_have_in_common(
    question: str, documents: list[DocumentInfo], found: list[DocumentInfo] | None
) -> None:
    overview = recognise(question, lambda: documents)
    assert (overview and list(overview.documents)) == found


def test_subject_is_taken_out_of_its_quotes() -> None:
    overview = recognise("Which documents mention “Acme Ltd”?", list)
    assert overview is not None
    assert overview.subject == "Acme Ltd"


def test_exact_name_goes_before_like_ones() -> None:
    copy = info("lease.pdf", number=4)
    assert find_document("lease.pdf", [MAY, copy]) == copy
    assert find_document("invoice", DOCUMENTS) is None


def test_every_document_that_mentions_is_found(library: Any) -> None:
    library.put("a.txt", "Steel comes from Acme Ltd.", "Acme Ltd delivers on Monday.")
    library.put("b.txt", "Ltd companies, and the acme of skill.")
    library.put("c.txt", "Nothing of the kind.")
    found = {mention.path: len(mention.chunks) for mention in find_mentions("Acme Ltd", library, None)}
    assert found == {"a.txt": 2, "b.txt": 1}


def test_changes_name_both_sides_and_nothing_else(library: Any) -> None:
    library.put("a.txt", "The rent is 900 euros.  It is due on the first.", "Pets are forbidden.")
    library.put("b.txt", "The rent is 950 euros. It is due on the first.", "Pets are forbidden.")
    (change,) = find_changes(library.document_chunks("a.txt"), library.document_chunks("b.txt"))
    assert change.before == ("The rent is 900 euros.",)
    assert change.after == ("The rent is 950 euros.",)
    assert find_changes(library.document_chunks("a.txt"), library.document_chunks("a.txt")) == []


async def events_of(question: str, engine: Any, library: Any, **parts: Any) -> list[Any]:
    retriever = Retriever(embedder=engine.embedder, library=library)
    ask = Ask(Target("quarry", "documents"), [{"role": "user", "content": question}], GenerationParams())
    usual = {"context_tokens": 1536, "answer_tokens": 256, "prompts": load_prompts()}
    made = Parts(engine, retriever, **{**usual, **parts})
    return [event async for event in answer(ask, made)]


def text_of(events: list[Any]) -> str:
    return "".join(event.text for event in events if isinstance(event, Text))


async def test_mentions_are_listed_with_their_sources(engine: Any, library: Any) -> None:
    library.put("a.txt", "Steel comes from Acme Ltd.")
    events = await events_of("Which files mention Acme Ltd?", engine, library)
    assert "1 of the documents mention “Acme Ltd”" in text_of(events)
    assert "a.txt: “Steel comes from Acme Ltd.” [1]" in text_of(events)
    (end,) = [event for event in events if isinstance(event, End)]
    assert [source.passage.path for source in end.sources] == ["a.txt"]
    assert end.cited == (1,)
    none = await events_of("哪些文件提到了白鲸？", engine, library)
    assert text_of(none) == "没有文档提到“白鲸”。"


async def test_short_document_is_read_at_once(engine: Any, library: Any) -> None:
    library.put("a.txt", "The zeppelin flies.", "It lands.")
    events = await events_of("Summarise a.txt", engine, library)
    assert len(engine.chat.prompts) == 1
    assert "[1] The zeppelin flies." in engine.chat.prompts[0]
    (retrieved,) = [event for event in events if isinstance(event, Retrieved)]
    assert len(retrieved.sources) == 2


async def test_long_document_is_read_part_by_part_and_progress_is_shown(engine: Any, library: Any) -> None:
    library.put("a.txt", *(f"Chapter {i}. " + "The zeppelin flies on. " * 40 for i in range(12)))
    events = await events_of("Summarise a.txt", engine, library)
    thoughts = [event.text for event in events if isinstance(event, Thought)]
    assert len(thoughts) > 1
    assert thoughts[0].startswith(f"Reading part 1 of {len(thoughts)} of a.txt")
    assert len(engine.chat.prompts) == len(thoughts) + 1
    (end,) = [event for event in events if isinstance(event, End)]
    assert len(end.sources) == len(thoughts)


async def test_without_a_model_the_summary_is_quoted(engine: Any, library: Any) -> None:
    engine.chat = None
    library.put("a.txt", "The zeppelin flies. It is large.", "It lands.")
    said = text_of(await events_of("Summarise a.txt", engine, library))
    assert "- “The zeppelin flies.” [1]" in said
