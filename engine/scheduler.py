"""One thread owns the native step; everyone else hands in work and waits.

Each step is one batch: the next token of every sequence that writes, plus a slice of the prompts still to be
read, so that a long prompt never freezes the others. Embedding and ranking run between steps: queries at
once, rankings a micro-batch after each step, documents in the share of time that chat leaves them.
"""

import atexit
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from engine import _native
from engine.errors import EngineClosed, EngineError, GenerationFailed, GrammarError, QueueFull
from engine.generation import Delta, FinishReason, Generation, GenerationParams, TokenLogprob
from engine.grammar import Matcher
from engine.stop_text import StopText
from engine.tokenizer import StreamDecoder, Tokenizer

Vectors = NDArray[np.float32]
Encode = Callable[[int, int], Vectors]
"""Computes the rows of the sequences [first, end) of a request."""
Urgency = Literal["query", "ranking", "document"]

_LONGEST_SLICE = 512  # prompt tokens of one step
_SHORTEST_SLICE = 16
_STEP_SECONDS = 0.15  # aimed at while somebody's answer is being written
_MOST_SEQUENCES = 16  # in one batch
_EMBED_TOKENS = 1024  # of one micro-batch while nobody chats
_EMBED_TOKENS_BETWEEN = 256  # of one between two steps
_EMBED_SHARE = 0.25  # of the time of the steps, for documents while somebody chats

_log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class _Chat:
    """A chat request on its way: what is still to be fed, and what has come out."""

    prompt: list[int]
    params: GenerationParams
    n_most: int  # tokens to generate at most
    sequence: _native.Sequence
    text: StopText
    generation: Generation
    pending: list[int]  # tokens that are not yet in the cache
    matcher: Matcher | None = None
    generated: list[int] = field(default_factory=list)
    cancelled: bool = False

    @property
    def is_writing(self) -> bool:
        return bool(self.generated) and len(self.pending) == 1


@dataclass(slots=True, eq=False)
class _Encoding:
    """An encoder's request: the lengths of its token sequences, and their rows so far."""

    lengths: Sequence[int]
    encode: Encode
    future: Future[Vectors]
    parts: list[Vectors] = field(default_factory=list)
    n_done: int = 0


@dataclass(frozen=True, slots=True)
class SchedulerStatus:
    """A moment of the scheduler: requests, cache blocks, tokens since the start."""

    n_running: int
    n_waiting: int
    n_embedding: int
    n_blocks: int
    n_free_blocks: int
    n_prompt_tokens: int
    n_completion_tokens: int
    n_preempted: int


class Scheduler:
    """Runs the chats of one decoder and the batches of encoders; see the module."""

    def __init__(
        self,
        decoder: _native.Decoder | None,
        tokenizer: Tokenizer | None,
        *,
        queue_limit: int,
    ) -> None:
        """Start the thread. `tokenizer` is the decoder's; `queue_limit` is how many chats may wait."""
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._queue_limit = queue_limit
        self._known_tokens = _known_tokens(decoder, tokenizer)
        self._work = threading.Condition()
        self._waiting: deque[_Chat] = deque()
        self._running: list[_Chat] = []
        self._encodings: dict[Urgency, deque[_Encoding]] = {
            "query": deque(),
            "ranking": deque(),
            "document": deque(),
        }
        self._stopping = False
        self._seconds_per_token = 0.0
        self._embed_credit = 0.0
        self._n_prompt_tokens = self._n_completion_tokens = self._n_preempted = 0
        self._thread = threading.Thread(target=self._run, name="quarry-engine", daemon=True)
        self._thread.start()
        # A thread that outlives the interpreter would keep the models from being freed.
        atexit.register(self.close)

    # Called from any thread.

    def chat(
        self,
        prompt: Sequence[int],
        params: GenerationParams,
        *,
        n_most: int,
        matcher: Matcher | None = None,
    ) -> Generation:
        """Queue a prompt that fits the cache with `n_most` tokens more; `matcher` holds the answer to a form.

        Raises: QueueFull, EngineClosed, GrammarError.
        """
        if self._decoder is None or self._tokenizer is None:
            raise EngineError("no chat model is open")
        native = _native.SamplingParams(
            temperature=params.temperature,
            top_k=params.top_k,
            top_p=params.top_p,
            min_p=params.min_p,
            repetition_penalty=params.repetition_penalty,
            frequency_penalty=params.frequency_penalty,
            presence_penalty=params.presence_penalty,
            penalty_window=-1,
            seed=(secrets.randbits(63) if params.seed is None else params.seed) % 2**64,
            logit_bias=dict(params.logit_bias),
            n_logprobs=-1 if params.n_logprobs is None else params.n_logprobs,
        )
        generation = Generation(len(prompt), lambda: self._cancel(chat))
        chat = _Chat(
            prompt=list(prompt),
            params=params,
            n_most=n_most,
            sequence=self._decoder.new_sequence(native),
            text=StopText(StreamDecoder(self._tokenizer), params.stop),
            generation=generation,
            pending=list(prompt),
            matcher=matcher,
        )
        if self._known_tokens is not None:
            chat.sequence.set_mask(self._known_tokens)
        if matcher is not None:
            chat.sequence.set_mask(matcher.mask())
        with self._work:
            if self._stopping:
                raise EngineClosed("the engine is closed")
            if len(self._waiting) >= self._queue_limit:
                raise QueueFull(
                    f"{len(self._waiting)} requests are waiting; the queue holds {self._queue_limit}",
                    retry_after=1 + len(self._waiting) // 4,
                )
            self._waiting.append(chat)
            self._work.notify()
        return generation

    def encode(self, lengths: Sequence[int], encode: Encode, *, urgency: Urgency) -> Future[Vectors]:
        """Queue sequences of `lengths` tokens; `encode` is called for some of them after the other.

        Raises: EngineClosed.
        """
        request = _Encoding(lengths, encode, Future())
        with self._work:
            if self._stopping:
                raise EngineClosed("the engine is closed")
            self._encodings[urgency].append(request)
            self._work.notify()
        return request.future

    def status(self) -> SchedulerStatus:
        """Tell what is going on now."""
        with self._work:
            return SchedulerStatus(
                n_running=len(self._running),
                n_waiting=len(self._waiting),
                n_embedding=sum(map(len, self._encodings.values())),
                n_blocks=self._decoder.n_blocks if self._decoder else 0,
                n_free_blocks=self._decoder.n_free_blocks if self._decoder else 0,
                n_prompt_tokens=self._n_prompt_tokens,
                n_completion_tokens=self._n_completion_tokens,
                n_preempted=self._n_preempted,
            )

    def close(self) -> None:
        """Stop after the step at work; requests under way end with EngineClosed."""
        with self._work:
            self._stopping = True
            self._work.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def _cancel(self, chat: _Chat) -> None:
        with self._work:
            chat.cancelled = True
            self._work.notify()

    # The thread.

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._drop_cancelled()
                self._admit()
                batch = self._plan()
                if batch:
                    self._step(batch)
                self._encode(busy=bool(batch))
        finally:  # whatever happened: nobody waits for a thread that is gone
            self._end_all(EngineClosed("the engine was closed"))

    def _wait_for_work(self) -> bool:
        with self._work:
            self._work.wait_for(
                lambda: self._stopping or self._waiting or self._running or any(self._encodings.values())
            )
            return not self._stopping

    def _drop_cancelled(self) -> None:
        with self._work:
            dropped = [chat for chat in (*self._running, *self._waiting) if chat.cancelled]
            for chat in dropped:
                (self._running if chat in self._running else self._waiting).remove(chat)
        for chat in dropped:
            self._finish(chat, "cancelled")

    def _admit(self) -> None:
        """Let waiting chats in while their pending tokens and one block for each running chat fit."""
        while self._decoder is not None and self._waiting and len(self._running) < _MOST_SEQUENCES:
            spoken_for = sum(self._blocks_needed(chat, len(chat.pending)) for chat in self._running)
            chat = self._waiting[0]
            needed = self._blocks_needed(chat, len(chat.pending) + 1)
            if self._running and needed + spoken_for + len(self._running) > self._decoder.n_free_blocks:
                return
            with self._work:
                self._running.append(self._waiting.popleft())
            chat.generation.note_start()

    def _blocks_needed(self, chat: _Chat, n_tokens: int) -> int:
        assert self._decoder is not None  # noqa: S101 - chats exist only with a decoder
        n_after = chat.sequence.n_cached + n_tokens
        return -(-n_after // self._decoder.block_tokens) - chat.sequence.n_blocks

    def _plan(self) -> list[tuple[_Chat, int]]:
        """Choose who feeds how many tokens: all that write, then a slice of the oldest prompts."""
        writing = [chat for chat in self._running if chat.is_writing]
        n_slice = _LONGEST_SLICE
        if writing and self._seconds_per_token > 0:
            n_slice = int(np.clip(_STEP_SECONDS / self._seconds_per_token, _SHORTEST_SLICE, _LONGEST_SLICE))
        plan = [(chat, 1) for chat in writing]
        for chat in self._running:
            n_tokens = min(len(chat.pending), n_slice)
            if not chat.is_writing and n_tokens:
                plan.append((chat, n_tokens))
                n_slice -= n_tokens
        return self._fit(plan)

    def _fit(self, plan: list[tuple[_Chat, int]]) -> list[tuple[_Chat, int]]:
        """Put the youngest chats back into the queue until the cache has the blocks that the plan needs."""
        while plan and self._decoder is not None:
            needed = sum(self._blocks_needed(chat, n) for chat, n in plan)
            if needed <= self._decoder.n_free_blocks:
                break
            youngest = self._running[-1]
            youngest.sequence.release()
            youngest.pending = [*youngest.prompt, *youngest.generated]
            with self._work:
                self._running.remove(youngest)
                self._waiting.appendleft(youngest)
                self._n_preempted += 1
            plan = [(chat, n) for chat, n in plan if chat is not youngest]
        return plan

    def _step(self, plan: list[tuple[_Chat, int]]) -> None:
        assert self._decoder is not None  # noqa: S101 - chats exist only with a decoder
        batch = [
            (chat.sequence, np.array(chat.pending[:n], np.int32), n == len(chat.pending)) for chat, n in plan
        ]
        started = time.perf_counter()
        try:
            results = self._decoder.step(batch)
        except (ValueError, RuntimeError, MemoryError) as error:
            _log.exception("a step of %d sequences failed", len(batch))
            for chat, _ in plan:
                self._fail(chat, GenerationFailed(f"the model could not continue: {error}"))
            return
        elapsed = time.perf_counter() - started
        n_fed = sum(n for _, n in plan)
        if n_fed > len(plan):
            rate = elapsed / n_fed
            self._seconds_per_token = (
                0.7 * self._seconds_per_token + 0.3 * rate if self._seconds_per_token else rate
            )
        self._embed_credit = min(self._embed_credit + _EMBED_SHARE * elapsed, _STEP_SECONDS)
        for (chat, n), sampled in zip(plan, results, strict=True):
            if not chat.generated:
                self._n_prompt_tokens += n
            chat.pending = chat.pending[n:]
            if sampled is not None:
                self._deliver(chat, sampled)

    def _deliver(self, chat: _Chat, sampled: _native.SampledToken) -> None:
        assert self._tokenizer is not None  # noqa: S101 - chats exist only with a tokenizer
        self._n_completion_tokens += 1
        chat.generated.append(sampled.id)
        chat.pending = [sampled.id]
        chat.generation.n_completion_tokens += 1
        if sampled.id in self._tokenizer.eos_ids:
            self._end(chat, "stop")
            return
        text = chat.text.push(sampled.id)
        logprobs = () if sampled.logprob is None else (self._logprob(sampled),)
        if text or logprobs:
            chat.generation.put(Delta(text, n_tokens=1, logprobs=logprobs))
        try:
            is_complete = self._follow(chat, sampled.id)
        except GrammarError as error:
            self._fail(chat, GenerationFailed(str(error)))
            return
        if chat.text.stopped or is_complete:
            self._end(chat, "stop")
        elif len(chat.generated) >= chat.n_most:
            self._end(chat, "length")

    def _follow(self, chat: _Chat, token_id: int) -> bool:
        """Take a token into the grammar and restrict the next sample; return whether it is complete."""
        if chat.matcher is None:
            return False
        is_complete = chat.matcher.accept(token_id)
        if not is_complete:
            chat.sequence.set_mask(chat.matcher.mask())
        return is_complete

    def _logprob(self, sampled: _native.SampledToken) -> TokenLogprob:
        assert self._tokenizer is not None  # noqa: S101 - chats exist only with a tokenizer
        assert sampled.logprob is not None  # noqa: S101 - the caller has looked

        def name(token_id: int) -> tuple[str, bytes]:
            assert self._tokenizer is not None  # noqa: S101 - as above
            data = self._tokenizer.token_bytes(token_id)
            return data.decode("utf-8", "replace"), data

        n_known = self._tokenizer.vocab_size
        top = tuple(
            (*name(token_id), logprob) for token_id, logprob in sampled.top_logprobs if token_id < n_known
        )
        return TokenLogprob(*name(sampled.id), sampled.logprob, top)

    def _end(self, chat: _Chat, reason: FinishReason) -> None:
        with self._work:
            self._running.remove(chat)
        self._finish(chat, reason)

    def _finish(self, chat: _Chat, reason: FinishReason) -> None:
        chat.sequence.release()
        chat.generation.put(Delta(chat.text.finish(is_cut=reason != "stop"), finish_reason=reason))

    def _fail(self, chat: _Chat, error: EngineError) -> None:
        with self._work:
            self._running.remove(chat)
        chat.sequence.release()
        chat.generation.put(error)

    def _encode(self, *, busy: bool) -> None:
        """Run all queries, then one micro-batch: of a ranking, or of documents if idle or in credit."""
        queries, rankings, documents = self._encodings.values()
        while queries:
            self._encode_some(queries, _EMBED_TOKENS)
        n_tokens = _EMBED_TOKENS_BETWEEN if busy else _EMBED_TOKENS
        if rankings:  # somebody waits for it
            self._encode_some(rankings, n_tokens)
        elif documents and not (busy and self._embed_credit <= 0):
            started = time.perf_counter()
            self._encode_some(documents, n_tokens)
            self._embed_credit -= time.perf_counter() - started

    def _encode_some(self, queue: deque[_Encoding], n_tokens: int) -> None:
        request = queue[0]
        end = request.n_done
        while end < len(request.lengths) and (end == request.n_done or n_tokens >= request.lengths[end]):
            n_tokens -= request.lengths[end]
            end += 1
        try:
            request.parts.append(request.encode(request.n_done, end))
        except (ValueError, RuntimeError, MemoryError) as error:
            _log.exception("an encoding of %d sequences failed", len(request.lengths))
            queue.popleft()
            request.future.set_exception(GenerationFailed(f"the model could not encode: {error}"))
            return
        request.n_done = end
        if end == len(request.lengths):
            queue.popleft()
            request.future.set_result(np.concatenate(request.parts))

    def _end_all(self, error: EngineError) -> None:
        with self._work:
            self._stopping = True
            chats = [*self._running, *self._waiting]
            encodings = [request for queue in self._encodings.values() for request in queue]
            self._running.clear()
            self._waiting.clear()
            for queue in self._encodings.values():
                queue.clear()
        for request in encodings:
            request.future.set_exception(error)
        for chat in chats:
            chat.sequence.release()
            chat.generation.put(error)


def _known_tokens(decoder: _native.Decoder | None, tokenizer: Tokenizer | None) -> NDArray[np.uint32] | None:
    """Return the mask of tokens that have a text, None where all have: matrices may be padded with rows."""
    if decoder is None or tokenizer is None or decoder.vocab_size == tokenizer.vocab_size:
        return None
    bits = np.zeros(-(-decoder.vocab_size // 32) * 32, np.uint8)
    bits[: tokenizer.vocab_size] = 1
    return np.packbits(bits, bitorder="little").view("<u4").astype(np.uint32)
