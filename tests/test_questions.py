"""The questions of bench/questions: every answer stands in its document, in every format."""

from pathlib import Path

import pytest

from bench.questions.formats import write
from bench.questions.source import read
from ingest.partition.limits import Limits
from ingest.partition.partitioner import Partitioner

KINDS = {"fact", "paraphrase", "how-to", "table", "identifier", "numeral", "follow-up", "near", "absent"}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_halves_hold_all_kinds_and_enough_of_each(language: str) -> None:
    sources, asked = read(language)
    assert len({source.format for source in sources}) == 12
    assert {question.kind for question in asked} == KINDS
    assert sum(bool(question.path) for question in asked) >= 150
    assert sum(not question.path for question in asked) >= 120
    for question in asked:
        assert bool(question.history) == (question.kind == "follow-up")
    development, held_out = (
        {q.path for q in asked if q.half == half} for half in ("development", "held-out")
    )
    assert development & held_out == {""}


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_answer_is_read_from_its_file(language: str, tmp_path: Path) -> None:
    sources, asked = read(language)
    with Partitioner(limits=Limits()) as partitioner:
        texts = {}
        for source in sources:
            file = tmp_path / source.path.replace("/", "-")
            file.write_bytes(write(source.text, source.path))
            texts[source.path] = " ".join(_read(partitioner, file).split())
    missing = [(q.path, q.gold) for q in asked if q.path and " ".join(q.gold.split()) not in texts[q.path]]
    assert missing == []


def _read(partitioner: Partitioner, file: Path) -> str:
    from tests.ingest.test_partition import read as read_elements

    return " ".join(element.text for element in read_elements(partitioner, file, file.read_bytes()))
