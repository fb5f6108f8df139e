"""The contract between native/ and Python: every name that `bindings.cpp` exports.

All calls release the GIL while they compute. Lengths, ids and ranges are checked in C++; a fault raises
`GgufError` (file) or `ValueError` (argument), never aborts. Source: native/src/bindings.cpp.
"""

from collections.abc import Sequence as Seq

import numpy as np
from numpy.typing import NDArray

type_names: list[str]
"""Tensor types that are read, multiplied by and written, e.g. "Q4_1"."""

encoder_architectures: list[str]
"""What `Encoder` runs; other files may be decoders."""

def instruction_sets() -> list[str]:
    """Instruction sets that this processor can run, slowest first: generic, avx2, avx512, avx512bf16."""

class GgufError(ValueError):
    """A GGUF file is malformed or unsupported; the message names key or tensor, the value and the limit."""

class CacheFull(RuntimeError):
    """The KV cache has fewer free blocks than the step needs; nothing was changed."""

class TensorInfo:
    name: str
    type: str
    shape: tuple[int, ...]
    """Dimensions, fastest first, as the file gives them."""
    offset: int
    """Bytes from the start of the file."""
    n_bytes: int

class GgufFile:
    """A memory-mapped, fully checked GGUF v2/v3 file."""

    def __init__(self, path: str) -> None:
        """Map `path` and check every length, key and tensor. Raises: GgufError, OSError."""
    version: int
    n_bytes: int
    def keys(self) -> list[str]: ...
    def get(self, key: str) -> object:
        """The value of `key`: int, float, bool, str or a list of these. Raises: KeyError."""
    def tensors(self) -> list[TensorInfo]: ...
    def row(self, tensor: str, index: int) -> NDArray[np.float32]:
        """Row `index` of `tensor`, dequantised, [shape[0]]. Raises: KeyError, IndexError, GgufError."""

    def raw_values(self) -> list[tuple[str, bytes]]:
        """Keys in the file's order, each with its value as it stands there: type, then bytes."""

class Quantizer:
    """Turns rows of a file's tensors into another type, on threads of its own. Not re-entrant."""

    def __init__(self, file: GgufFile, n_threads: int) -> None: ...
    def rows(
        self,
        tensor: str,
        first: int,
        n: int,
        type: str,  # noqa: A002 - the field's name
        importance: NDArray[np.float32] | None,
    ) -> NDArray[np.uint8]:
        """Rows [first, first + n) of `tensor` as `type`; `importance` weighs columns, [shape[0]].

        Raises: GgufError (a value that cannot be read or written, by row), ValueError (no such tensor or
        type, rows that blocks of the type do not divide).
        """

    def copy(self, tensor: str, first: int, n: int) -> bytes:
        """The same rows as they lie in the file."""

class ThreadPool:
    """Worker threads shared by the models of a process."""

    def __init__(self, n_threads: int, instruction_set: str = "auto") -> None:
        """Start `n_threads` - 1 workers (1 <= n_threads <= 256) that run kernels of `instruction_set`."""
    n_threads: int
    instruction_set: str

    def observe(self, collector: ImportanceCollector | None) -> None:
        """Show every matrix product of models on these threads to `collector`, until None is given."""

    def peaks(self) -> dict[str, float]:
        """Measure what these threads can do at most, in about a second.

        "int8", "bf16" and "fp32" are operations a second of all threads together, a product and a sum being
        two; "bf16" is 0 where the instruction set has no such products. "read" is bytes of memory a second.
        """

class MatmulObserver: ...

class ImportanceCollector(MatmulObserver):
    """Sums up the squares of what a model's matrices are multiplied by."""

    def __init__(self) -> None: ...
    def sums(self) -> list[tuple[str, int, list[float], list[int]]]:
        """Of each tensor seen: name, width, sums [parts * width], rows seen [parts]; a part is an expert."""

class SamplingParams:
    """How to draw the next token. Ranges are checked here; ValueError names the field and its range."""

    def __init__(
        self,
        *,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        frequency_penalty: float = 0.0,
        presence_penalty: float = 0.0,
        penalty_window: int = 64,
        seed: int = 0,
        logit_bias: dict[int, float] = ...,
        n_logprobs: int = -1,
    ) -> None:
        """`temperature` 0 is greedy; `top_k` 0, `top_p` 1 and `min_p` 0 are off.

        `n_logprobs` -1 returns no logprobs, 0 that of the drawn token, n (<= 20) also the n most likely ones.
        Repetition, frequency and presence penalties look at the last `penalty_window` tokens (0: none;
        -1: all) of what was generated, and repetition also of the prompt.
        """

class SampledToken:
    id: int
    logprob: float | None
    """Natural logarithm, before temperature and penalties; None where not asked for."""
    top_logprobs: list[tuple[int, float]]

class Sequence:
    """One sequence's place in the KV cache with its sampler state. Made by `Decoder.new_sequence`.

    Not thread-safe: whoever calls `Decoder.step` also calls these.
    """

    n_cached: int
    """Tokens whose keys and values are in the cache."""
    n_blocks: int
    def reuse(self, next_ids: NDArray[np.int32]) -> int:
        """Take over the blocks that the tenant's other sequences left for the tokens that come next.

        Returns how many tokens need not be fed: whole blocks, 0 unless all blocks of this sequence are full.
        Keep the last token of a prompt out: what is not fed cannot be sampled from.
        """
    def restore(self, token_ids: NDArray[np.int32], data: NDArray[np.uint8]) -> bool:
        """Take the next block from `copy_block` of an equal beginning; False where the cache has no block.

        Raises: ValueError (not one block of tokens, not its size, or the last block is not full).
        """
    def copy_block(self, index: int) -> bytes:
        """Copy a full block, [block_bytes]. Raises: ValueError."""
    def release(self) -> None:
        """Give the blocks back and forget the cached tokens; the sampler keeps its state (for recompute).

        Full blocks stay findable for `reuse` until their memory is needed.
        """
    def set_mask(self, allowed: NDArray[np.uint32] | None) -> None:
        """Restrict the next samples to tokens whose bit is set in `allowed` [ceil(vocab_size / 32)]."""

class Decoder:
    """A causal model and its KV cache. Not re-entrant: one thread at a time may call `step` or `logits`."""

    def __init__(
        self, file: GgufFile, pool: ThreadPool, *, cache_tokens: int, cache_type: str = "f16"
    ) -> None:
        """Load weights and make a cache of `cache_tokens` tokens, rounded up to whole blocks.

        `cache_type`: f16, or q8_0, which takes a little over half the memory and rounds keys and values to 8
        bits. Raises: GgufError (unknown architecture, missing or misshapen tensor), MemoryError, ValueError.
        """
    architecture: str
    vocab_size: int
    context_length: int
    embedding_length: int
    is_recurrent: bool
    """Whether sequences carry a state besides the cache: they share no beginnings and take no guesses."""
    block_tokens: int
    """Tokens in one cache block."""
    n_blocks: int
    n_free_blocks: int
    """Blocks that no sequence holds."""
    n_kept_blocks: int
    """Of these, blocks that keep a beginning for reuse."""
    block_bytes: int
    weight_bytes: int
    cache_bytes: int
    def new_sequence(self, sampling: SamplingParams, tenant: str | None = None) -> Sequence:
        """Make a sequence that shares equal beginnings with those of `tenant`; None shares nothing."""
    def forget_prefixes(self) -> None:
        """Drop every beginning that is kept for reuse; running sequences go on, and leave none behind."""
    def step(self, batch: Seq[tuple[Sequence, NDArray[np.int32], int]]) -> list[list[SampledToken]]:
        """Feed each sequence its new tokens; draw as many as the number says, and return them.

        One forward pass over all rows: prefill slices and decode tokens mix freely. Fed tokens of a sequence
        count as prompt until its first draw. 0 draws nothing, 1 a token after the last one. With n > 1 the
        last n - 1 tokens are a guess of what will be drawn: draws go on while they agree with it, and the
        rest of the guess is taken back. The tokens, the sampler's state included, are those of single steps.

        Raises: CacheFull, ValueError (empty row, more draws than tokens, id outside the vocabulary, a
        sequence twice, longer than the context).
        """
    def logits(self, token_ids: NDArray[np.int32]) -> NDArray[np.float32]:
        """Logits after each token of a sequence on its own, [n_tokens, vocab_size]. Raises: as `step`."""
    def next_logprobs(self, token_ids: NDArray[np.int32], first: int) -> NDArray[np.float32]:
        """Natural logarithms of the probabilities of token_ids[first + 1:], each after those before it."""

class Encoder:
    """A bidirectional model that turns token sequences into vectors. Not re-entrant."""

    def __init__(self, file: GgufFile, pool: ThreadPool) -> None: ...
    architecture: str
    vocab_size: int
    context_length: int
    embedding_length: int
    pooling: str
    """mean, cls, last or rank, from the file."""
    n_scores: int
    """Scores that the head gives, 0 where the file has none."""
    weight_bytes: int
    def encode(self, batch: Seq[NDArray[np.int32]], normalize: bool = True) -> NDArray[np.float32]:
        """Pooled vectors [n, embedding_length] of token sequences that carry their special tokens.

        Raises: ValueError (empty sequence, id outside the vocabulary, longer than the context, a file that
        pools by rank).
        """
    def score(self, batch: Seq[tuple[NDArray[np.int32], int]]) -> NDArray[np.float32]:
        """What the head makes of the first token, [n, n_scores].

        Each item is a token sequence that carries its special tokens, and the index at which the second text
        begins. Raises: as `encode`; ValueError where there is no head.
        """

class CausalEncoder:
    """A decoder that turns token sequences into vectors. Not re-entrant."""

    def __init__(self, file: GgufFile, pool: ThreadPool) -> None:
        """Load the layers, without the matrix that makes logits. Raises: GgufError, MemoryError."""
    architecture: str
    vocab_size: int
    context_length: int
    """At most 8192, whatever the file says."""
    embedding_length: int
    pooling: str
    """mean, last or rank, from the file; last where it does not say."""
    weight_bytes: int
    def encode(self, batch: Seq[NDArray[np.int32]], normalize: bool = True) -> NDArray[np.float32]:
        """Vectors [n, embedding_length] of token sequences that carry their special tokens, after the final
        norm: of the last token (also where the file says rank), or their mean. Raises: ValueError.
        """
