"""One thread owns the native step; everyone else hands in work and waits.

Each step is one batch: the next token of every sequence that writes, plus a slice of the prompts still to be
read, so that a long prompt never freezes the others. Beginnings that the cache knows are not read again, and
while nobody reads, what an answer quotes is guessed from where it stands and checked several tokens a step.
Embedding and ranking run between steps: queries at once, then rankings, documents in the share of time that
chat leaves them.
"""

import atexit
import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from engine import _native
from engine.chat_request import ChatRequest, Feed, known_tokens
from engine.encoding_queue import Encode, EncodingQueue, Urgency, Vectors
from engine.errors import EngineClosed, EngineError, GenerationFailed, GrammarError, QueueFull
from engine.generation import Generation, GenerationParams
from engine.grammar import Matcher
from engine.kept_prefixes import KeptPrefixes
from engine.prefix_store import PrefixStore
from engine.prompt_lookup import NO_GUESS
from engine.prompt_slices import LONGEST_SLICE, PlannedStep, PromptSlices
from engine.step_times import StepTimes
from engine.tokenizer import Tokenizer

_COPY_SECONDS = 0.03  # of copying blocks between two steps, of all chats
_MOST_SEQUENCES = 16  # in one batch

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SchedulerStatus:
    """A moment of the scheduler: requests, cache blocks, tokens since the start."""

    n_running: int
    n_waiting: int
    n_embedding: int
    n_blocks: int
    n_free_blocks: int  # that no request holds
    n_prompt_tokens: int  # read, those that the cache knew left out
    n_completion_tokens: int
    n_preempted: int
    n_kept_blocks: int = 0  # of the free ones, those that keep a beginning for reuse
    n_reused_tokens: int = 0  # of prompts, known to the cache or restored
    n_restored_tokens: int = 0  # of these, from disk
    n_guessed_tokens: int = 0  # fed before they were drawn
    n_guessed_right: int = 0


class Scheduler:
    """Runs the chats of one decoder and the batches of encoders; see the module."""

    def __init__(
        self,
        decoder: _native.Decoder | None,
        tokenizer: Tokenizer | None,
        *,
        queue_limit: int,
        speculates: bool = True,
    ) -> None:
        """Start the thread. `tokenizer` is the decoder's; `queue_limit` is how many chats may wait.

        `speculates`: whether answers are guessed ahead; it changes their speed, not a token of them.
        """
        self._decoder = decoder
        self._tokenizer = tokenizer
        self._known_tokens = known_tokens(decoder, tokenizer) if decoder and tokenizer else None
        self._queue_limit = queue_limit
        self._speculates = speculates and decoder is not None and not decoder.is_recurrent
        self._work = threading.Condition()
        self._waiting: deque[ChatRequest] = deque()
        self._running: list[ChatRequest] = []
        self._encodings = EncodingQueue()
        self._times = StepTimes()
        self._slices = PromptSlices()
        self._forgetting: list[Future[None]] = []
        self._kept = KeptPrefixes(decoder.block_tokens) if decoder else None
        self._stopping = False
        self._n_prompt_tokens = self._n_completion_tokens = self._n_reused_tokens = self._n_preempted = 0
        self._n_guessed_tokens = self._n_guessed_right = 0
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
        generation = Generation(len(prompt), lambda: self._cancel(chat))
        chat = ChatRequest(
            prompt,
            params,
            n_most=n_most,
            decoder=self._decoder,
            tokenizer=self._tokenizer,
            seed=(secrets.randbits(63) if params.seed is None else params.seed) % 2**64,
            generation=generation,
            known_tokens=self._known_tokens,
            matcher=matcher,
        )
        chat.age = self._kept.age if self._kept else 0
        with self._work:
            self._check_open()
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
        with self._work:
            self._check_open()
            future = self._encodings.add(lengths, encode, urgency=urgency)
            self._work.notify()
        return future

    def forget_prefixes(self) -> Future[None]:
        """Drop what is kept of prompts for reuse, before the next step; the future tells when it is gone."""
        with self._work:
            self._check_open()
            future: Future[None] = Future()
            self._forgetting.append(future)
            self._work.notify()
        return future

    def keep_prefixes_in(self, store: PrefixStore) -> None:
        """Write beginnings that were asked for twice to `store`, and look for others there."""
        if self._kept is not None:
            self._kept.store = store

    def status(self) -> SchedulerStatus:
        """Tell what is going on now."""
        with self._work:
            return SchedulerStatus(
                n_running=len(self._running),
                n_waiting=len(self._waiting),
                n_embedding=len(self._encodings),
                n_blocks=self._decoder.n_blocks if self._decoder else 0,
                n_free_blocks=self._decoder.n_free_blocks if self._decoder else 0,
                n_prompt_tokens=self._n_prompt_tokens,
                n_completion_tokens=self._n_completion_tokens,
                n_preempted=self._n_preempted,
                n_kept_blocks=self._decoder.n_kept_blocks if self._decoder else 0,
                n_reused_tokens=self._n_reused_tokens,
                n_restored_tokens=self._kept.n_restored_tokens if self._kept else 0,
                n_guessed_tokens=self._n_guessed_tokens,
                n_guessed_right=self._n_guessed_right,
            )

    def close(self) -> None:
        """Stop after the step at work; requests under way end with EngineClosed."""
        with self._work:
            self._stopping = True
            self._work.notify()
        self._thread.join()
        atexit.unregister(self.close)

    def _check_open(self) -> None:
        if self._stopping:
            raise EngineClosed("the engine is closed")

    def _cancel(self, chat: ChatRequest) -> None:
        with self._work:
            chat.cancelled = True
            self._work.notify()

    # The thread.

    def _run(self) -> None:
        try:
            while self._wait_for_work():
                self._forget()
                self._drop_cancelled()
                self._admit()
                batch = self._plan()
                seconds = self._step(batch) if batch else None
                self._encodings.run(chat_seconds=seconds)
        finally:  # whatever happened: nobody waits for a thread that is gone
            self._end_all(EngineClosed("the engine was closed"))

    def _wait_for_work(self) -> bool:
        with self._work:
            self._work.wait_for(
                lambda: (
                    self._stopping
                    or self._waiting
                    or self._running
                    or len(self._encodings)
                    or self._forgetting
                )
            )
            return not self._stopping

    def _forget(self) -> None:
        with self._work:
            asked, self._forgetting = self._forgetting, []
        for future in asked:
            try:
                if self._decoder is not None and self._kept is not None:
                    self._decoder.forget_prefixes()
                    self._kept.forget()
            except OSError as error:
                future.set_exception(EngineError(f"kept beginnings of prompts cannot be removed: {error}"))
            else:
                future.set_result(None)

    def _drop_cancelled(self) -> None:
        with self._work:
            dropped = [chat for chat in (*self._running, *self._waiting) if chat.cancelled]
            for chat in dropped:
                (self._running if chat in self._running else self._waiting).remove(chat)
        for chat in dropped:
            chat.finish("cancelled")

    def _admit(self) -> None:
        """Let waiting chats in while their pending tokens and one block for each running chat fit."""
        while self._decoder is not None and self._waiting and len(self._running) < _MOST_SEQUENCES:
            chat = self._waiting[0]
            spoken_for = sum(other.blocks_missing(other.n_pending) for other in self._running)
            # What others hold of its beginning takes no room.
            self._reuse(chat)
            needed = chat.blocks_missing(chat.n_pending + 1)
            if self._running and needed + spoken_for + len(self._running) > self._decoder.n_free_blocks:
                self._put_off(chat)
                return
            with self._work:
                self._running.append(self._waiting.popleft())
            chat.generation.note_start()

    def _reuse(self, chat: ChatRequest) -> None:
        self._note_reused(chat, chat.reuse())

    def _note_reused(self, chat: ChatRequest, n: int) -> None:
        self._n_reused_tokens += n
        if not chat.n_generated:
            chat.generation.n_cached_tokens += n

    def _restore(self, chat: ChatRequest, *, until: float) -> bool:
        """Take over some of what the disk has of a prompt; tell whether it has more."""
        if self._kept is None:
            return False
        n, has_more = self._kept.restore(chat, until=until)
        self._note_reused(chat, n)
        return has_more

    def _put_off(self, chat: ChatRequest) -> None:
        """Free what a chat holds; it is read again later, as far as the cache does not know it still."""
        chat.sequence.release()
        if not chat.n_generated:
            self._n_reused_tokens -= chat.generation.n_cached_tokens
            chat.generation.n_cached_tokens = 0

    def _plan(self) -> list[Feed]:
        """Choose who feeds how many tokens: all that write, then a slice of the oldest prompts."""
        writing = [chat for chat in self._running if chat.is_writing]
        if len(writing) == len(self._running):
            return self._fit(self._guess(writing))
        plan = [Feed(chat, 1, draws=True) for chat in writing]
        n_left = LONGEST_SLICE
        until = time.perf_counter() + _COPY_SECONDS
        for chat in self._running:
            if n_left == 0:
                break
            if chat.is_writing:
                continue
            self._reuse(chat)
            if self._restore(chat, until=until):
                continue
            if any(chat.can_wait_for(feed.chat, feed.n_known) for feed in plan):
                continue
            step = PlannedStep(
                n_rows=sum(feed.n_rows for feed in plan),
                n_keys=sum(feed.n_keys for feed in plan),
                reads=len(plan) > len(writing),
                writes=bool(writing),
            )
            n_tokens = self._slices.choose(min(chat.n_pending, n_left), chat.sequence.n_cached, step)
            if n_tokens == 0:
                break
            plan.append(Feed(chat, n_tokens, draws=n_tokens == chat.n_pending))
            n_left -= n_tokens
        return self._fit(plan)

    def _guess(self, writing: list[ChatRequest]) -> list[Feed]:
        """Let everybody feed its next token, and what may follow it."""
        plan: list[Feed] = []
        n_rows = len(writing)
        for chat in writing:
            guess = NO_GUESS
            if self._speculates:
                guess = chat.guess(n_rows=n_rows, n_expected=n_rows, times=self._times)
            plan.append(Feed(chat, 1, draws=True, guess=guess))
            n_rows += len(guess)
        return plan

    def _fit(self, plan: list[Feed]) -> list[Feed]:
        """Put the youngest chats back into the queue until the cache has the blocks that the plan needs."""
        while plan and self._decoder is not None:
            needed = sum(feed.chat.blocks_missing(feed.n_rows) for feed in plan)
            if needed <= self._decoder.n_free_blocks:
                break
            if any(len(feed.guess) for feed in plan):  # nobody leaves for a guess
                plan = [Feed(feed.chat, feed.n_known, feed.draws) for feed in plan]
                continue
            youngest = self._running[-1]
            self._put_off(youngest)
            with self._work:
                self._running.remove(youngest)
                self._waiting.appendleft(youngest)
                self._n_preempted += 1
            plan = [feed for feed in plan if feed.chat is not youngest]
        return plan

    def _step(self, plan: list[Feed]) -> float:
        """Run a batch and deliver what it drew; return the seconds it took."""
        assert self._decoder is not None  # noqa: S101 - chats exist only with a decoder
        n_rows = sum(feed.n_rows for feed in plan)
        n_keys = sum(feed.n_keys for feed in plan)
        is_reading = any(not feed.chat.is_writing for feed in plan)
        started = time.perf_counter()
        try:
            results = self._decoder.step([feed.row() for feed in plan])
        except (ValueError, RuntimeError, MemoryError) as error:
            _log.exception("a step of %d sequences failed", len(plan))
            for feed in plan:
                self._fail(feed.chat, GenerationFailed(f"the model could not continue: {error}"))
            return time.perf_counter() - started
        elapsed = time.perf_counter() - started
        self._times.note(n_rows, elapsed)
        if is_reading:
            self._slices.note(n_rows, n_keys, elapsed)
        until = time.perf_counter() + _COPY_SECONDS
        for feed, drawn in zip(plan, results, strict=True):
            if not feed.chat.n_generated:
                self._n_prompt_tokens += feed.n_known
            self._n_guessed_tokens += len(feed.guess)
            self._n_guessed_right += len(drawn) - 1 if len(feed.guess) else 0
            self._deliver(feed.chat, drawn, until=until)
        return elapsed

    def _deliver(self, chat: ChatRequest, drawn: list[_native.SampledToken], *, until: float) -> None:
        for token in drawn:
            self._n_completion_tokens += 1
            try:
                reason = chat.take(token)
            except GrammarError as error:
                self._fail(chat, GenerationFailed(str(error)))
                return
            if reason is not None:
                with self._work:
                    self._running.remove(chat)
                if self._kept is not None:
                    self._kept.keep(chat, until=until)
                chat.finish(reason)
                return

    def _fail(self, chat: ChatRequest, error: EngineError) -> None:
        with self._work:
            self._running.remove(chat)
        chat.sequence.release()
        chat.generation.put(error)

    def _end_all(self, error: EngineError) -> None:
        with self._work:
            self._stopping = True
            chats = [*self._running, *self._waiting]
            self._running.clear()
            self._waiting.clear()
            forgetting, self._forgetting = self._forgetting, []
            self._encodings.fail(error)
        for future in forgetting:
            future.set_exception(error)
        for chat in chats:
            chat.sequence.release()
            chat.generation.put(error)
