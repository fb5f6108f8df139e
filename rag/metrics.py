"""What a running service tells Prometheus. Numbers only: no text of documents or prompts."""

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rag.ports import Engine, Library

_SECONDS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100)


class Metrics:
    """The counters of one service; what engine and library know is read when it is asked for."""

    def __init__(self, engine: Engine, library: Library) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Moment(engine, library))
        self._first_text = Histogram(
            "quarry_time_to_first_token_seconds",
            "From the request to the first piece of its answer, search and queue included",
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._seconds = Histogram(
            "quarry_request_seconds",
            "From a request's headers to the last byte of its answer",
            ["route"],
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._requests = Counter(
            "quarry_requests", "Requests answered", ["route", "status"], registry=self._registry
        )
        self._searches = Histogram(
            "quarry_search_seconds",
            "Finding passages: query embedding, both indexes, fusion",
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._queue = Histogram(
            "quarry_queue_seconds",
            "From a generation's admission to its first step",
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._failures = Counter(
            "quarry_failures", "Requests answered with an error", ["code"], registry=self._registry
        )

    def first_text_after(self, seconds: float) -> None:
        """Note how long a client waited for the first piece of its answer."""
        self._first_text.observe(seconds)

    def requested(self, route: str, status: int | None, seconds: float) -> None:
        """Count an answer; status None: the client left before there was one."""
        self._seconds.labels(route).observe(seconds)
        self._requests.labels(route, str(status or 499)).inc()

    def searched(self, seconds: float) -> None:
        """Note how long a search took."""
        self._searches.observe(seconds)

    def queued(self, seconds: float) -> None:
        """Note how long a generation waited for the engine."""
        self._queue.observe(seconds)

    def failed(self, code: str | None) -> None:
        """Count an error by its code."""
        self._failures.labels(code or "unknown").inc()

    def text(self) -> bytes:
        """Write everything as Prometheus reads it."""
        return generate_latest(self._registry)


class _Moment(Collector):
    """Reads engine and library."""

    def __init__(self, engine: Engine, library: Library) -> None:
        self._engine = engine
        self._library = library

    def collect(self) -> Iterable[Metric]:
        """Give the numbers of this moment."""
        now = self._engine.status().scheduler
        for name, told, value in (
            ("quarry_requests_running", "Answers being written", now.n_running),
            ("quarry_requests_waiting", "Answers waiting for the engine", now.n_waiting),
            ("quarry_embeddings_waiting", "Embedding requests in the engine", now.n_embedding),
            ("quarry_kv_blocks", "Blocks of the KV cache", now.n_blocks),
            ("quarry_kv_blocks_used", "Blocks of the KV cache in use", now.n_blocks - now.n_free_blocks),
            ("quarry_kv_blocks_kept", "Blocks that keep beginnings of prompts for reuse", now.n_kept_blocks),
            *self._documents(),
        ):
            yield GaugeMetricFamily(name, told, value=value)
        for name, told, value in (
            ("quarry_prompt_tokens", "Tokens read", now.n_prompt_tokens),
            ("quarry_prompt_tokens_reused", "Tokens of prompts that the cache knew", now.n_reused_tokens),
            ("quarry_prompt_tokens_restored", "Of these, tokens that came from disk", now.n_restored_tokens),
            ("quarry_completion_tokens", "Tokens written", now.n_completion_tokens),
            ("quarry_guessed_tokens", "Tokens guessed ahead of their draw", now.n_guessed_tokens),
            ("quarry_guessed_tokens_right", "Of these, tokens that were drawn", now.n_guessed_right),
            ("quarry_preemptions", "Answers put back for want of cache", now.n_preempted),
        ):
            yield CounterMetricFamily(name, told, value=value)

    def _documents(self) -> list[tuple[str, str, float]]:
        status = self._library.status()
        now = status.progress
        n_to_read = now.n_total - now.n_done if now else 0
        return [
            ("quarry_documents", "Documents that can be searched", status.n_documents),
            ("quarry_chunks", "Passages that can be searched", status.n_chunks),
            ("quarry_ingest_backlog", "Documents still to be read", n_to_read + status.n_waiting),
            ("quarry_documents_failed", "Documents that could not be read", status.n_failed),
        ]
