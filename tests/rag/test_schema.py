"""Any input gets an answer in OpenAI's form: schemathesis over the whole API (make schemathesis: longer)."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.openapi import from_asgi

from ingest.library import Library
from rag.app import create_app
from rag.settings import Settings
from tests.ingest.hashing_embedder import HashingEmbedder

# Of each operation; schemathesis adds its own cases at the edges of the schema.
EXAMPLES = int(os.environ.get("QUARRY_SCHEMA_EXAMPLES", "8"))


class FlatReranker:
    """Finds every passage equally good."""

    name = "flat"
    max_tokens = 512

    def rerank(self, query: str, passages: list[str]) -> Any:
        assert query
        return np.full(len(passages), 0.5, np.float32)


@pytest.fixture
def api(engine: Any, tmp_path: Path) -> Iterator[Any]:
    documents = tmp_path / "documents"
    documents.mkdir()
    (documents / "handbook.md").write_text("# Leave\n\nEmployees may carry over five vacation days.\n")
    embedder = HashingEmbedder(dimension=engine.embedder.dimension)
    engine.reranker = FlatReranker()
    library = Library.open(tmp_path / "data", documents_dir=documents, embedder=embedder, settle_seconds=0.0)
    try:
        library.reconcile()
        app = create_app(
            Settings(data_dir=tmp_path / "data", documents_dir=documents), engine=engine, library=library
        )
        yield from_asgi("/openapi.json", app, headers={"Host": "127.0.0.1"})
    finally:
        library.close()


def test_no_input_is_the_servers_fault(api: Any) -> None:
    faults, n_sent = [], 0
    for result in api.get_all_operations():
        operation = result.ok()

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            nonlocal n_sent
            n_sent += 1
            response = case.call(headers={"Host": "127.0.0.1"})
            assert response.status_code < 500, response.text
            if response.status_code >= 400:
                body = response.json()
                assert set(body["error"]) == {"message", "type", "param", "code"}
                assert body["request_id"]

        try:
            check()
        except AssertionError as error:
            faults.append(f"{operation.label}: {error}")
    assert faults == []
    assert n_sent >= 40 * min(EXAMPLES, 5)
