"""llama.cpp through llama-cpp-python's low-level calls: the peer of the benchmarks and of the golden files.

Runs in the peers' environment only; needs numpy, llama-cpp-python and nothing of Quarry's.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import llama_cpp as api
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

FILE_TYPES = {
    "F32": 0,
    "F16": 1,
    "Q4_0": 2,
    "Q4_1": 3,
    "Q8_0": 7,
    "Q5_0": 8,
    "Q5_1": 9,
    "Q2_K": 10,
    "Q3_K_S": 11,
    "Q3_K_M": 12,
    "Q3_K_L": 13,
    "Q4_K_S": 14,
    "Q4_K_M": 15,
    "Q5_K_S": 16,
    "Q5_K_M": 17,
    "Q6_K": 18,
    "IQ4_NL": 25,
    "IQ4_XS": 30,
    "BF16": 32,
}
"""llama.cpp's llama_ftype by name."""

GGML_TYPE_F32, GGML_TYPE_F16 = 0, 1


# Kept for the life of the process: llama.cpp holds the pointer.
_DISCARD = api.llama_log_callback(lambda _level, _text, _data: None)


def start() -> None:
    """Prepare llama.cpp, once a process, and silence it."""
    api.llama_log_set(_DISCARD, ctypes.c_void_p())
    api.llama_backend_init()


def system_info() -> str:
    """Describe the instruction sets of this build as llama.cpp prints them."""
    return str(api.llama_print_system_info().decode())


def has_blas() -> bool:
    """Tell whether this build has the BLAS backend, which expands weights and multiplies in F32."""
    return any(Path(api.__file__).parent.glob("lib/*ggml-blas*"))


@dataclass(frozen=True, slots=True)
class Settings:
    """What llama.cpp lets a user choose; None leaves its own default."""

    flash_attention: bool | None = None
    repack: bool = True
    n_threads: int = 1
    n_ctx: int = 2048
    n_batch: int = 2048
    n_ubatch: int = 512
    n_sequences: int = 1
    embeddings: bool = False
    f32_cache: bool = False
    unified_cache: bool = True
    """One cache for all sequences, or an equal part for each."""


class Llama:
    """One loaded model and one context."""

    def __init__(self, path: Path | str, settings: Settings) -> None:
        """Load `path`. Raises: RuntimeError where llama.cpp refuses the file or the settings."""
        self.settings = settings
        model_params = api.llama_model_default_params()
        model_params.use_extra_bufts = settings.repack
        self._model = api.llama_model_load_from_file(str(path).encode(), model_params)
        if not self._model:
            raise RuntimeError(f"llama.cpp cannot load {path}")
        self._context = api.llama_init_from_model(self._model, _context_params(settings))
        if not self._context:
            api.llama_model_free(self._model)
            raise RuntimeError(f"llama.cpp cannot make a context for {path} with {settings}")
        self._vocab = api.llama_model_get_vocab(self._model)
        self._batch = api.llama_batch_init(settings.n_batch, 0, 1)
        self.n_vocab: int = api.llama_vocab_n_tokens(self._vocab)
        self.n_embd: int = api.llama_model_n_embd(self._model)

    def close(self) -> None:
        api.llama_batch_free(self._batch)
        api.llama_free(self._context)
        api.llama_model_free(self._model)

    def tokenize(self, text: str, *, add_special: bool, parse_special: bool) -> list[int]:
        raw = text.encode()
        buffer = (ctypes.c_int32 * (len(raw) + 8))()
        n = api.llama_tokenize(self._vocab, raw, len(raw), buffer, len(buffer), add_special, parse_special)
        if n < 0:
            raise RuntimeError(f"llama.cpp needs {-n} tokens for {len(raw)} bytes")
        return list(buffer[:n])

    def clear(self) -> None:
        """Forget every sequence."""
        memory = api.llama_get_memory(self._context)
        if memory:  # encoders have none
            api.llama_memory_clear(memory, True)

    def forget_after(self, position: int) -> None:
        """Keep the first `position` tokens of every sequence."""
        api.llama_memory_seq_rm(api.llama_get_memory(self._context), -1, position, -1)

    def fill(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        """Write (token, position, sequence, wants output) rows into the batch that `run` computes."""
        batch = self._batch
        for i, (token, position, sequence, output) in enumerate(rows):
            batch.token[i] = token
            batch.pos[i] = position
            batch.n_seq_id[i] = 1
            batch.seq_id[i][0] = sequence
            batch.logits[i] = output
        batch.n_tokens = len(rows)

    def run(self) -> None:
        """Compute the batch. Raises: RuntimeError."""
        # Encoders keep no memory of what they read.
        compute = api.llama_decode if api.llama_get_memory(self._context) else api.llama_encode
        status = compute(self._context, self._batch)
        if status != 0:
            raise RuntimeError(f"llama.cpp failed on a batch of {self._batch.n_tokens} tokens: {status}")

    def feed(self, rows: Sequence[tuple[int, int, int, bool]]) -> None:
        """Fill a batch and compute it. Raises: RuntimeError."""
        self.fill(rows)
        self.run()

    def output(self, row: int) -> NDArray[np.float32]:
        """Return a view of the logits of the batch's row, [n_vocab]; -1 is the last."""
        row_of_logits = api.llama_get_logits_ith(self._context, row)
        return np.asarray(np.ctypeslib.as_array(row_of_logits, shape=(self.n_vocab,)))

    def prefill(self, ids: Sequence[int], *, sequence: int = 0) -> int:
        """Feed a whole prompt; return the most likely next token."""
        last = len(ids) - 1
        rows = [(token, i, sequence, i == last) for i, token in enumerate(ids)]
        for at in range(0, len(rows), self.settings.n_batch):
            self.feed(rows[at : at + self.settings.n_batch])
        return int(self.output(-1).argmax())

    def logits(self, ids: Sequence[int], positions: Sequence[int]) -> NDArray[np.float32]:
        """Return the logits after the tokens at `positions`, [len(positions), n_vocab]."""
        self.clear()
        wanted = set(positions)
        rows = [(token, i, 0, i in wanted) for i, token in enumerate(ids)]
        found: dict[int, NDArray[np.float32]] = {}
        step = self.settings.n_batch
        for at in range(0, len(rows), step):
            self.feed(rows[at : at + step])
            for i in range(at, min(at + step, len(rows))):
                if i in wanted:
                    found[i] = self.output(i - at).copy()
        return np.stack([found[i] for i in positions])

    def embed(self, batch: Sequence[Sequence[int]]) -> NDArray[np.float32]:
        """Return the pooled vectors [len(batch), n_embd], L2-normalised, of at most n_sequences inputs."""
        self.clear()
        rows = [(token, i, s, True) for s, ids in enumerate(batch) for i, token in enumerate(ids)]
        self.feed(rows)
        vectors = np.stack(
            [
                np.ctypeslib.as_array(api.llama_get_embeddings_seq(self._context, s), shape=(self.n_embd,))
                for s in range(len(batch))
            ]
        )
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    def scores(self, ids: Sequence[int]) -> list[float]:
        """Return what the head of a reranker makes of one input."""
        self.clear()
        self.feed([(token, i, 0, True) for i, token in enumerate(ids)])
        n_scores = api.llama_model_n_cls_out(self._model)
        scores = api.llama_get_embeddings_seq(self._context, 0)
        return [float(scores[i]) for i in range(n_scores)]


def vocabulary_ids(path: Path | str, texts: Sequence[str]) -> list[list[int]]:
    """Cut texts by a file that may hold a vocabulary alone. Raises: RuntimeError where it is refused."""
    params = api.llama_model_default_params()
    params.vocab_only = True
    model = api.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise RuntimeError(f"llama.cpp cannot load the vocabulary of {path}")
    vocabulary = api.llama_model_get_vocab(model)
    rows = []
    for text in texts:
        raw = text.encode()
        buffer = (ctypes.c_int32 * (2 * len(raw) + 8))()
        n = api.llama_tokenize(vocabulary, raw, len(raw), buffer, len(buffer), False, False)
        rows.append(list(buffer[: max(n, 0)]))
    api.llama_model_free(model)
    return rows


def _context_params(settings: Settings) -> api.llama_context_params:
    params = api.llama_context_default_params()
    params.n_ctx = settings.n_ctx
    params.n_batch = settings.n_batch
    # An encoder reads a whole batch at once.
    params.n_ubatch = settings.n_batch if settings.embeddings else settings.n_ubatch
    params.n_seq_max = settings.n_sequences
    params.n_threads = settings.n_threads
    params.n_threads_batch = settings.n_threads
    params.embeddings = settings.embeddings
    params.kv_unified = settings.unified_cache
    if settings.flash_attention is not None:
        params.flash_attn_type = int(settings.flash_attention)
    params.type_k = params.type_v = GGML_TYPE_F32 if settings.f32_cache else GGML_TYPE_F16
    return params


def quantize(
    source: Path,
    target: Path,
    file_type: str,
    *,
    n_threads: int,
    importance: Mapping[str, NDArray[np.float32]] | None = None,
) -> None:
    """Write `target` as `file_type`; `importance` has columns by name of the matrix.

    Raises: KeyError (unknown type), RuntimeError.
    """
    params = api.llama_model_quantize_default_params()
    params.ftype = FILE_TYPES[file_type]
    params.nthread = n_threads
    params.allow_requantize = True
    if importance is not None:
        entries = (
            api.llama_model_imatrix_data * (len(importance) + 1)
        )()  # the last one, of no name, ends it
        for entry, (name, columns) in zip(entries, importance.items(), strict=False):
            entry.name, entry.size = name.encode(), len(columns)
            entry.data = columns.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
        params.imatrix = entries
    if api.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(params)) != 0:
        raise RuntimeError(f"llama.cpp cannot quantise {source} to {file_type}")
