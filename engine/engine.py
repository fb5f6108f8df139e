"""Everything that models do, in one process: open it, hand it around, close it."""

import hashlib
import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from engine import _native
from engine.canary import check_embedder, check_reranker
from engine.chat_model import ChatModel
from engine.chat_template import ChatTemplate
from engine.default_templates import CHATML, default_template
from engine.embedder import Embedder, EmbedderFingerprint
from engine.encoder_files import check_vocabulary, open_embedding, open_scorer
from engine.errors import ModelNotFound, UnsupportedModel
from engine.kept_prefixes import cache_fingerprint
from engine.model_checks import ModelChecks
from engine.prefix_store import PrefixStore, purge
from engine.reranker import Reranker
from engine.scheduler import Scheduler, SchedulerStatus
from engine.tokenizer import Tokenizer, load_tokenizer

_CACHE_TOKENS = 16384
_CACHE_SHARE = 0.25  # of the machine's memory at most, where nobody says how much

_log = logging.getLogger(__name__)

CacheType = Literal["f16", "q8_0"]
_VALUE_BYTES: dict[CacheType, float] = {"f16": 2, "q8_0": 1.125}

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """A moment of the engine."""

    instruction_set: str
    n_threads: int
    weight_bytes: int
    cache_bytes: int
    scheduler: SchedulerStatus


class Engine:
    """The models of a process, sharing its threads and one scheduler."""

    def __init__(
        self,
        pool: _native.ThreadPool,
        decoder: _native.Decoder | None,
        scheduler: Scheduler,
        *,
        chat: ChatModel | None,
        embedder: Embedder | None,
        reranker: Reranker | None,
        weight_bytes: int,
        chat_model: Path | None = None,
        cache_type: CacheType = "f16",
    ) -> None:
        """Join the parts; use `open`. `chat_model` is the decoder's file."""
        self.chat = chat
        self.embedder = embedder
        self.reranker = reranker
        self._pool = pool
        self._decoder = decoder
        self._scheduler = scheduler
        self._weight_bytes = weight_bytes
        self._chat_model = chat_model
        self._cache_type = cache_type
        self._store: PrefixStore | None = None

    @classmethod
    def open(
        cls,
        *,
        chat_model: Path | None,
        embedding_model: Path | None,
        rerank_model: Path | None = None,
        threads: int | None = None,
        cache_tokens: int | None = None,
        cache_type: CacheType = "f16",
        queue_limit: int = 64,
        document_prefix: str | None = None,
        query_prefix: str | None = None,
        check_models: bool = True,
        checks_dir: Path | None = None,
        instruction_set: str = "auto",
        speculates: bool = True,
    ) -> Self:
        """Load the models. `threads` None: one for each core; `cache_tokens` None: what memory allows.

        A prefix of None is what the embedding model's file says, or what is known of it. `check_models` asks
        the embedding and rerank models what is known (see `canary`); `checks_dir` keeps who has passed.
        `cache_type`: how keys and values are kept; q8_0 takes a little over half the memory of f16.
        `speculates`: whether what an answer quotes is guessed ahead; it changes speed, not answers.

        Raises: ModelNotFound, UnsupportedModel (the message names file, key or tensor), ValueError (threads).
        """
        pool = _native.ThreadPool(threads or n_cores(), instruction_set)
        decoder = tokenizer = encoder = scorer = None
        if chat_model is not None:
            chat_file = _open_file(chat_model)
            n_tokens = cache_tokens or _affordable_tokens(chat_file, cache_type)
            # Before the tokenizer: an unknown architecture is the first thing to say.
            with _naming(chat_model):
                decoder = _native.Decoder(chat_file, pool, cache_tokens=n_tokens, cache_type=cache_type)
                tokenizer = load_tokenizer(chat_file)
                check_vocabulary(tokenizer, decoder.vocab_size)
        if embedding_model is not None:
            embedding_file = _open_file(embedding_model)
            with _naming(embedding_model):
                encoder, embedding_tokenizer, prompts = open_embedding(
                    embedding_file, embedding_model.stem, pool
                )
        if rerank_model is not None:
            with _naming(rerank_model):
                scorer = open_scorer(_open_file(rerank_model), pool)
        scheduler = Scheduler(decoder, tokenizer, queue_limit=queue_limit, speculates=speculates)
        chat = embedder = reranker = None
        if chat_model is not None and decoder is not None and tokenizer is not None:
            chat = ChatModel(
                model_name(chat_model),
                tokenizer,
                _template(chat_file, tokenizer, chat_model),
                scheduler,
                context_length=min(decoder.context_length, decoder.n_blocks * decoder.block_tokens),
                vocab_size=decoder.vocab_size,
                n_weights=sum(math.prod(tensor.shape) for tensor in chat_file.tensors()),
                tool_template=_tool_template(chat_file, tokenizer),
            )
        if embedding_model is not None and encoder is not None:
            fingerprint = EmbedderFingerprint(
                gguf_sha256=_sha256(embedding_model),
                pooling=encoder.pooling,
                document_prefix=prompts.document if document_prefix is None else document_prefix,
                query_prefix=prompts.query if query_prefix is None else query_prefix,
                dimension=encoder.embedding_length,
            )
            embedder = Embedder(
                model_name(embedding_model),
                embedding_tokenizer,
                encoder,
                scheduler,
                fingerprint,
                max_tokens=encoder.context_length,
            )
        if rerank_model is not None and scorer is not None:
            reranker = Reranker(model_name(rerank_model), scorer, scheduler)
        weight_bytes = sum(model.weight_bytes for model in (decoder, encoder, scorer) if model is not None)
        engine = cls(
            pool,
            decoder,
            scheduler,
            chat=chat,
            embedder=embedder,
            reranker=reranker,
            weight_bytes=weight_bytes,
            chat_model=chat_model,
            cache_type=cache_type,
        )
        if check_models:
            try:
                engine._check(embedding_model, rerank_model, ModelChecks(checks_dir))
            except BaseException:
                engine.close()
                raise
        return engine

    def _check(self, embedding_model: Path | None, rerank_model: Path | None, checks: ModelChecks) -> None:
        """Ask the models that nobody has asked yet. Raises: UnsupportedModel."""
        embedder, reranker = self.embedder, self.reranker
        if embedding_model and embedder and not checks.has_passed(embedder.fingerprint):
            with _naming(embedding_model):
                check_embedder(lambda texts, kind: embedder.embed(texts, kind=kind))
            checks.keep(embedder.fingerprint)
        if rerank_model and reranker:
            fingerprint = ("rerank", _sha256(rerank_model))
            if not checks.has_passed(fingerprint):
                with _naming(rerank_model):
                    check_reranker(reranker.rerank)
                checks.keep(fingerprint)

    def status(self) -> EngineStatus:
        """Tell what runs on what, and how busy it is."""
        return EngineStatus(
            instruction_set=self._pool.instruction_set,
            n_threads=self._pool.n_threads,
            weight_bytes=self._weight_bytes,
            cache_bytes=self._decoder.cache_bytes if self._decoder else 0,
            scheduler=self._scheduler.status(),
        )

    def keep_prefixes_in(self, folder: Path, *, limit_bytes: int) -> None:
        """Keep beginnings of prompts that recur in files, of `limit_bytes` at most; 0: remove what is there.

        Nobody else may use the folder. Where it cannot be used, the log says so, and all works without it.
        """
        decoder = self._decoder
        try:
            if limit_bytes == 0 or decoder is None or self._chat_model is None or decoder.is_recurrent:
                purge(folder)
                return
            self._store = PrefixStore(
                folder,
                model=cache_fingerprint(self._chat_model, self._pool.instruction_set, self._cache_type),
                block_bytes=decoder.block_bytes,
                limit_bytes=limit_bytes,
            )
        except OSError as error:
            _log.warning("beginnings of prompts are not kept: %s", error)
            return
        self._scheduler.keep_prefixes_in(self._store)

    def forget_prefixes(self) -> None:
        """Drop what was kept of prompts for reuse; returns when it is gone. Raises: EngineClosed."""
        self._scheduler.forget_prefixes().result()

    def close(self) -> None:
        """Stop; requests under way end with EngineClosed."""
        self._scheduler.close()
        if self._store is not None:
            self._store.close()


def model_name(path: Path) -> str:
    """Return the id that clients see: the file's name as a plain slug."""
    return re.sub(r"[^a-z0-9.]+", "-", path.stem.lower()).strip("-.")


def n_cores() -> int:
    """Count the physical cores that this process may use."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    siblings = set()
    for cpu in allowed:
        topology = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
        try:
            siblings.add(topology.read_text(encoding="ascii"))
        except OSError:
            return len(allowed)
    return len(siblings)


def _open_file(path: Path) -> _native.GgufFile:
    try:
        return _native.GgufFile(str(path))
    except FileNotFoundError:
        raise ModelNotFound(f"there is no model file {path}") from None
    except OSError as error:
        raise ModelNotFound(f"{path} cannot be read: {error.strerror or error}") from error
    except _native.GgufError as error:
        raise UnsupportedModel(f"{path}: {error}") from error


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Put the file's name before what is wrong with it."""
    try:
        yield
    except (_native.GgufError, UnsupportedModel) as error:
        message = str(error)
        raise UnsupportedModel(message if message.startswith(f"{path}: ") else f"{path}: {error}") from error


def _template(file: _native.GgufFile, tokenizer: Tokenizer, path: Path) -> ChatTemplate:
    """Compile the file's chat template, else the form that its vocabulary or its names tell."""
    keys = set(file.keys())

    def value(key: str) -> str:
        return str(file.get(key)) if key in keys else ""

    source = value("tokenizer.chat_template")
    if not source:
        form = default_template(
            names=(value("general.name"), path.stem),
            architecture=value("general.architecture"),
            has_token=tokenizer.has_token,
        )
        if form is None:
            _log.warning("%s holds no chat template: it is spoken to in ChatML, which it may not know", path)
        else:
            _log.info("%s holds no chat template: it is spoken to in %s form", path, form.label)
        source = (form or CHATML).source
    return _compile(source, tokenizer)


def _tool_template(file: _native.GgufFile, tokenizer: Tokenizer) -> ChatTemplate | None:
    """Compile the template that some files (Command R, Hermes 2 Pro) hold for conversations with tools."""
    key = "tokenizer.chat_template.tool_use"
    return _compile(str(file.get(key)), tokenizer) if key in file.keys() else None  # noqa: SIM118 - not a dict


def _compile(source: str, tokenizer: Tokenizer) -> ChatTemplate:
    def name(token_id: int | None) -> str:
        return "" if token_id is None else tokenizer.token_text(token_id)

    return ChatTemplate(source, bos_token=name(tokenizer.bos_id), eos_token=name(tokenizer.eos_id))


def _affordable_tokens(file: _native.GgufFile, cache_type: CacheType) -> int:
    """Return a cache size that several chats fill, within a quarter of the memory."""
    keys = set(file.keys())
    prefix = str(file.get("general.architecture")) if "general.architecture" in keys else ""

    def number(key: str, absent: int) -> int:
        value = file.get(f"{prefix}.{key}") if f"{prefix}.{key}" in keys else absent
        return value if isinstance(value, int) and value > 0 else max(absent, 1)

    n_heads = number("attention.head_count", 1)
    head_dim = number("attention.key_length", number("embedding_length", 1) // n_heads)
    n_values = 2 * number("block_count", 1) * number("attention.head_count_kv", n_heads) * head_dim
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return max(512, min(_CACHE_TOKENS, int(_CACHE_SHARE * memory / (_VALUE_BYTES[cache_type] * n_values))))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
