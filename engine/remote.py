"""Models that run elsewhere, behind an OpenAI-compatible URL, in the place of those of this process.

Nothing here knows the upstream's tokenizer: lengths are estimated from above, and the upstream has the last
word. A form that an answer is held to travels as a JSON schema, tools in words, as for any local model.
"""

from __future__ import annotations

import base64
import json
import re
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np

from engine.errors import ContextTooLong, EngineError, UpstreamFailed
from engine.generation import Delta, FinishReason, Generation, GenerationParams, TokenLogprob

if TYPE_CHECKING:
    import httpx
    from numpy.typing import NDArray

    from engine.chat_model import ChatModel
    from engine.embedder import Embedder
    from engine.engine import Engine, EngineStatus
    from engine.reranker import Reranker
    from engine.upstream import Upstream

_LONG_WORD = 12
_BATCH = 64  # texts in one request
_PROBE = "What is the answer?"
_SWITCH = "chat_template_kwargs"  # vLLM's: whether the template lets the model think
_REASONS: dict[str, FinishReason] = {"length": "length", "stop": "stop"}
# What the templates of well-known models end turns with.
_CONTROL = re.compile(
    r"<\|[^|>\s]{1,40}\|>|</?s>|\[/?INST\]|<(?:start|end)_of_turn>|<\uff5c[^\uff5c>]{1,40}\uff5c>"
)
_UNITS = re.compile(r"[a-zA-Z]+|[\u00c0-\u024f\u0370-\u052f]+|\s+|.", re.DOTALL)


def estimate_tokens(text: str) -> int:
    """Count the tokens of a text from above, for vocabularies that know its language.

    A token holds 3 letters, 2 in long words, with accents, in Greek or Cyrillic; or one other character;
    blanks between words are part of them.
    """
    n = 0
    for unit in _UNITS.finditer(text):
        piece = unit[0]
        if piece.isspace():
            n += len(piece) // 4 + piece.count("\n")
        elif piece.isascii() and piece.isalpha():
            n += -(-len(piece) // (3 if len(piece) <= _LONG_WORD else 2))
        elif len(piece) > 1:
            n += -(-len(piece) // 2)
        else:
            n += 1 if ord(piece) < 0x10000 else 3
    return n


def estimate_each(texts: Sequence[str]) -> list[int]:
    """Estimate the tokens of many texts; stands in a module, so that it can be pickled."""
    return [estimate_tokens(text) for text in texts]


@dataclass(frozen=True, slots=True)
class RemotePrompt(Sequence[int]):
    """A prompt that only the upstream cuts into tokens. Its length is estimated; its ids are not known.

    controls: what stands in it that a template may take for the end of a turn, where these count.
    """

    text: str
    messages: tuple[Mapping[str, Any], ...] | None = field(default=None, compare=False)
    thinking: bool | None = field(default=None, compare=False)
    controls: tuple[str, ...] = ()
    n_tokens: int = field(default=0, compare=False)

    def __len__(self) -> int:
        return self.n_tokens

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        raise TypeError("the ids of a remote prompt are not known here")


class RemoteChat:
    """A chat model behind a URL; thread-safe."""

    knows_tools = False
    n_weights = 1 << 40
    """Nobody tells; it is not one of the smallest."""

    def __init__(self, upstream: Upstream, *, context_length: int) -> None:
        """Take over a client; see `find_context`."""
        self.name = re.sub(r"[^a-z0-9.]+", "-", upstream.model.lower()).strip("-.")
        self.context_length = context_length
        self.thinks = True  # where it does, it says so in a field of its own
        self._upstream = upstream
        self._knows_switch = True

    def count_tokens(self, text: str) -> int:
        """Estimate from above."""
        return estimate_tokens(text)

    def tokenize(self, text: str, *, special: bool) -> Sequence[int]:
        """Give a text as a prompt of estimated length."""
        controls = tuple(_CONTROL.findall(text)) if special else ()
        return RemotePrompt(text, controls=controls, n_tokens=estimate_tokens(text))

    def opens_thought(self, prompt: Sequence[int]) -> bool:  # noqa: ARG002 - as ChatModel has it
        """Say no: the upstream tells thoughts from answers."""
        return False

    def detokenize(self, token_ids: Sequence[int]) -> str:  # noqa: ARG002 - as ChatModel has it
        """Say that this cannot be done. Raises: EngineError."""
        raise EngineError(f"{self.name} runs at {self._upstream.url}, which keeps its vocabulary to itself")

    def prompt_tokens(
        self,
        messages: Sequence[Mapping[str, Any]],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        thinking: bool | None = None,
    ) -> Sequence[int]:
        """Give a conversation as a prompt of estimated length."""
        assert tools is None  # noqa: S101 - tools are told in words, see `knows_tools`
        n_tokens = 4 + sum(8 + estimate_tokens(str(message["content"])) for message in messages)
        return RemotePrompt("", messages=tuple(messages), thinking=thinking, n_tokens=n_tokens)

    def generate(self, prompt: Sequence[int], params: GenerationParams) -> Generation:
        """Begin to continue `prompt`. Raises: ContextTooLong, QueueFull, UpstreamFailed."""
        if len(prompt) >= self.context_length:
            raise ContextTooLong(
                f"the prompt has about {len(prompt)} tokens; {self.name} reads {self.context_length}"
            )
        path, body = _request(prompt, params)
        if not self._knows_switch:
            body.pop(_SWITCH, None)
        try:
            return _Streaming(self._upstream, path, body, len(prompt)).begin()
        except UpstreamFailed as error:
            if _SWITCH not in body or _SWITCH not in str(error):
                raise
        # Whoever does not know this field is not asked again.
        self._knows_switch = False
        del body[_SWITCH]
        return _Streaming(self._upstream, path, body, len(prompt)).begin()


class _Streaming:
    """An answer that a thread of its own reads from the upstream."""

    def __init__(self, upstream: Upstream, path: str, body: Mapping[str, Any], n_prompt: int) -> None:
        self._upstream = upstream
        self._path = path
        self._body = body
        self._cancelled = threading.Event()
        self._response: httpx.Response | None = None
        self._generation = Generation(n_prompt, self._cancel)
        self._has_thought = False

    def begin(self) -> Generation:
        """Send the request, and read on in the background once it is admitted."""
        with ExitStack() as stack:
            self._response = stack.enter_context(self._upstream.stream(self._path, self._body))
            self._generation.note_start()
            rest = stack.pop_all()
        threading.Thread(target=self._read, args=(rest,), name="quarry-upstream", daemon=True).start()
        return self._generation

    def _cancel(self) -> None:
        """Cut the connection: the upstream sees that nobody reads, and the thread here wakes up."""
        self._cancelled.set()
        network = self._response.extensions.get("network_stream") if self._response else None
        connection = network.get_extra_info("socket") if network is not None else None
        if connection is not None:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is closed already

    def _read(self, rest: ExitStack) -> None:
        generation, response = self._generation, self._response
        assert response is not None  # noqa: S101 - begin() has set it
        reason: FinishReason = "cancelled"
        try:
            with rest:
                for event in self._upstream.events(response):
                    reason = self._take(event) or reason
                    if self._cancelled.is_set():
                        break
            if reason == "cancelled" and not self._cancelled.is_set():
                raise UpstreamFailed(f"{self._upstream.url} ended an answer without saying why")
        except EngineError as error:
            generation.put(Delta("", finish_reason="cancelled") if self._cancelled.is_set() else error)
            return
        # Whatever a stranger sends, the reader must not wait for ever.
        except Exception as error:  # noqa: BLE001
            generation.put(UpstreamFailed(f"{self._upstream.url} sends what is not OpenAI's: {error}"))
            return
        generation.put(Delta(self._end_thought(), finish_reason=reason))

    def _take(self, event: Mapping[str, Any]) -> FinishReason | None:
        generation = self._generation
        if usage := event.get("usage"):
            generation.n_prompt_tokens = int(usage["prompt_tokens"])
            generation.n_completion_tokens = int(usage["completion_tokens"])
            details = usage.get("prompt_tokens_details") or {}
            generation.n_cached_tokens = int(details.get("cached_tokens") or 0)
        for choice in event.get("choices") or ():
            delta = choice.get("delta") or {}
            thought = delta.get("reasoning_content") or delta.get("reasoning") or ""
            text = delta.get("content") or choice.get("text") or ""
            if thought:
                thought = ("" if self._has_thought else "<think>") + thought
                self._has_thought = True
            if text:
                text = self._end_thought() + text
            logprobs = _logprobs(choice.get("logprobs"))
            if thought or text or logprobs:
                generation.n_completion_tokens += 1
                generation.put(Delta(thought + text, max(1, len(logprobs)), logprobs))
            if finish := choice.get("finish_reason"):
                return _REASONS.get(str(finish), "stop")
        return None

    def _end_thought(self) -> str:
        if not self._has_thought:
            return ""
        self._has_thought = False
        return "</think>"


@dataclass(frozen=True, slots=True)
class RemoteFingerprint:
    """What makes vectors of an upstream comparable, as far as it can be known."""

    url: str
    model: str
    document_prefix: str
    query_prefix: str
    dimension: int


class RemoteEmbedder:
    """An embedding model behind a URL; thread-safe and blocking."""

    def __init__(
        self, upstream: Upstream, *, max_tokens: int, document_prefix: str = "", query_prefix: str = ""
    ) -> None:
        """Ask for one vector, to know how long they are. Raises: UpstreamFailed."""
        self.name = re.sub(r"[^a-z0-9.]+", "-", upstream.model.lower()).strip("-.")
        self.max_tokens = max_tokens
        self._upstream = upstream
        self.dimension = len(self._request([_PROBE])[0])
        self.fingerprint = RemoteFingerprint(
            upstream.url, upstream.model, document_prefix, query_prefix, self.dimension
        )

    def count_tokens(self, text: str) -> int:
        """Estimate from above, so that nothing is cut off unseen."""
        return estimate_tokens(text)

    @property
    def token_counter(self) -> Callable[[Sequence[str]], list[int]]:
        """Estimate the tokens of many texts; may be pickled into another process."""
        return estimate_each

    def embed(self, texts: Sequence[str], *, kind: Literal["document", "query"]) -> NDArray[np.float32]:
        """Return L2-normalised vectors [len(texts), dimension], order kept.

        Raises: ContextTooLong, QueueFull, UpstreamFailed.
        """
        fingerprint = self.fingerprint
        prefix = fingerprint.query_prefix if kind == "query" else fingerprint.document_prefix
        vectors = np.empty((len(texts), self.dimension), np.float32)
        for start in range(0, len(texts), _BATCH):
            batch = [prefix + text for text in texts[start : start + _BATCH]]
            found = self._request(batch)
            if found.shape[1] != self.dimension:
                raise UpstreamFailed(
                    f"{self._upstream.url} gives vectors of {found.shape[1]} numbers, and before of "
                    f"{self.dimension}: another model must be running there"
                )
            vectors[start : start + len(batch)] = found
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(norms, 1e-12), np.float32)

    def _request(self, texts: list[str]) -> NDArray[np.float32]:
        body = self._upstream.post("/embeddings", {"input": texts, "encoding_format": "base64"})
        try:
            items = sorted(body["data"], key=lambda item: item["index"])
            vectors = np.array([_vector(item["embedding"]) for item in items], np.float32)
        except (KeyError, TypeError, ValueError) as error:
            raise UpstreamFailed(f"{self._upstream.url} gives no embeddings in OpenAI's form") from error
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise UpstreamFailed(f"{self._upstream.url} gives no {len(texts)} vectors of finite numbers")
        return vectors


class RemoteReranker:
    """A reranking model behind a URL that has Jina's and Cohere's /rerank; thread-safe and blocking."""

    def __init__(self, upstream: Upstream, *, max_tokens: int) -> None:
        """Take over a client."""
        self.name = re.sub(r"[^a-z0-9.]+", "-", upstream.model.lower()).strip("-.")
        self.max_tokens = max_tokens
        self._upstream = upstream

    def rerank(self, query: str, passages: Sequence[str]) -> NDArray[np.float32]:
        """Return how likely each passage answers the question, order kept.

        Raises: UpstreamFailed, QueueFull.
        """
        scores = np.zeros(len(passages), np.float32)
        if not passages:
            return scores
        asked = {"query": query, "documents": list(passages), "top_n": len(passages)}
        body = self._upstream.post("/rerank", {**asked, "return_documents": False})
        try:
            found = {int(item["index"]): float(item["relevance_score"]) for item in body["results"]}
            scores[list(found)] = list(found.values())
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UpstreamFailed(f"{self._upstream.url} gives no scores in the form of /rerank") from error
        if len(found) != len(passages):
            raise UpstreamFailed(f"{self._upstream.url} scores {len(found)} of {len(passages)} passages")
        return scores


class MixedEngine:
    """An engine some of whose models run elsewhere."""

    def __init__(
        self,
        local: Engine,
        *,
        chat: RemoteChat | None = None,
        embedder: RemoteEmbedder | None = None,
        reranker: RemoteReranker | None = None,
        upstreams: Sequence[Upstream] = (),
    ) -> None:
        """Put remote models in the place of local ones."""
        self.chat: ChatModel | RemoteChat | None = chat or local.chat
        self.embedder: Embedder | RemoteEmbedder | None = embedder or local.embedder
        self.reranker: Reranker | RemoteReranker | None = reranker or local.reranker
        self._local = local
        self._upstreams = upstreams

    def status(self) -> EngineStatus:
        """Tell how busy the local part is."""
        return self._local.status()

    def forget_prefixes(self) -> None:
        """Drop what the local part keeps of prompts."""
        self._local.forget_prefixes()

    def close(self) -> None:
        """Stop all of it."""
        for upstream in self._upstreams:
            upstream.close()
        self._local.close()


def find_context(upstream: Upstream) -> int | None:
    """Ask how many tokens the upstream's model reads; None where it does not say, or does not answer."""
    try:
        listed = upstream.get("/models").get("data") or ()
        return next(
            (
                int(m["max_model_len"])
                for m in listed
                if m.get("id") == upstream.model and m.get("max_model_len")
            ),
            None,
        )
    except (EngineError, AttributeError, TypeError, ValueError):
        return None


def _request(prompt: Sequence[int], params: GenerationParams) -> tuple[str, dict[str, Any]]:
    body: dict[str, Any] = {
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": params.temperature,
        "top_p": params.top_p,
        "max_tokens": params.max_tokens,
        "frequency_penalty": params.frequency_penalty,
        "presence_penalty": params.presence_penalty,
        "seed": params.seed,
        "stop": list(params.stop) or None,
        "logit_bias": {str(token): bias for token, bias in params.logit_bias.items()} or None,
        # Not OpenAI's own: only sent where they mean something.
        "top_k": params.top_k or None,
        "min_p": params.min_p or None,
        "repetition_penalty": None if params.repetition_penalty == 1.0 else params.repetition_penalty,
    }
    if params.grammar is not None:
        schema = json.loads(params.grammar.schema)
        described = {"name": "answer", "schema": schema, "strict": True}
        body["response_format"] = {"type": "json_schema", "json_schema": described}
    if isinstance(prompt, RemotePrompt) and prompt.messages is not None:
        if params.n_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": params.n_logprobs or None}
        if prompt.thinking is not None:
            body[_SWITCH] = {"enable_thinking": prompt.thinking}
        path, body["messages"] = "/chat/completions", list(prompt.messages)
    else:
        path, body["logprobs"] = "/completions", params.n_logprobs
        body["prompt"] = prompt.text if isinstance(prompt, RemotePrompt) else list(prompt)
    return path, {key: value for key, value in body.items() if value is not None}


def _logprobs(given: Mapping[str, Any] | None) -> tuple[TokenLogprob, ...]:
    if not given:
        return ()
    if "content" not in given:  # the older form, of /completions
        tokens, values = given.get("tokens") or (), given.get("token_logprobs") or ()
        tops = given.get("top_logprobs") or [{}] * len(tokens)
        return tuple(
            TokenLogprob(t, t.encode(), v, tuple((k, k.encode(), p) for k, p in (top or {}).items()))
            for t, v, top in zip(tokens, values, tops, strict=True)
        )
    return tuple(
        TokenLogprob(
            item["token"],
            _bytes(item),
            item["logprob"],
            tuple((top["token"], _bytes(top), top["logprob"]) for top in item.get("top_logprobs") or ()),
        )
        for item in given["content"] or ()
    )


def _bytes(item: Mapping[str, Any]) -> bytes:
    given = item.get("bytes")
    return str(item["token"]).encode() if given is None else bytes(given)


def _vector(given: str | list[float]) -> NDArray[np.float32]:
    if isinstance(given, str):
        return np.frombuffer(base64.b64decode(given), "<f4")
    return np.array(given, np.float32)
