"""OpenAI's wire: what requests may hold, and the answers' shapes.

Unknown fields are ignored, as clients send many. What means something and is not supported is refused.
"""

import json
import time
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, StrictInt, StrictStr

from engine.chat_model import Delta, GenerationParams
from rag.citations import Source
from rag.errors import InvalidRequest, UnsupportedParameter


def _encodable(text: str) -> str:
    """Refuse half characters, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a surrogate pair, which is no text") from error
    return text


String = Annotated[StrictStr, AfterValidator(_encodable)]
MOST_CHOICES = 8
Number = Annotated[float, Field(allow_inf_nan=False)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())


class ContentPart(_Body):
    """A piece of a message: only text is read."""

    type: String
    text: String | None = None


class CalledFunction(_Body):
    """The function of an earlier call; `arguments` is JSON as the client kept it."""

    name: String
    arguments: String


class MessageToolCall(_Body):
    """A call that an earlier answer made."""

    id: String
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(_Body):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: String | list[ContentPart] | None = None
    tool_calls: list[MessageToolCall] | None = None
    tool_call_id: String | None = None
    name: String | None = None


class StreamOptions(_Body):
    """Options of a stream."""

    include_usage: StrictBool | None = False
    include_obfuscation: StrictBool | None = False


class ChatRequest(_Body):
    """POST /v1/chat/completions. `sources_footer`, `source_links`, `answers` are our own; `top_k`, `min_p`,
    `repetition_penalty` and `chat_template_kwargs` (of which `enable_thinking` is read) are those of other
    servers.
    """

    model: String = Field(min_length=1, max_length=512)
    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    stream: StrictBool | None = False
    stream_options: StreamOptions | None = None
    n: StrictInt | None = Field(None, ge=1, le=128)
    max_tokens: StrictInt | None = Field(None, ge=1, le=1 << 24)
    max_completion_tokens: StrictInt | None = Field(None, ge=1, le=1 << 24)
    temperature: Number | None = Field(None, ge=0, le=2)
    top_p: Number | None = Field(None, gt=0, le=1)
    top_k: StrictInt | None = Field(None, ge=0, le=1 << 20)
    min_p: Number | None = Field(None, ge=0, le=1)
    repetition_penalty: Number | None = Field(None, gt=0, le=2)
    frequency_penalty: Number | None = Field(None, ge=-2, le=2)
    presence_penalty: Number | None = Field(None, ge=-2, le=2)
    seed: StrictInt | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: String | Annotated[list[String], Field(max_length=16)] | None = None
    logit_bias: dict[str, Annotated[Number, Field(ge=-100, le=100)]] | None = Field(None, max_length=1024)
    logprobs: StrictBool | None = False
    top_logprobs: StrictInt | None = Field(None, ge=0, le=20)
    response_format: dict[str, Any] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: String | dict[str, Any] | None = None
    parallel_tool_calls: StrictBool | None = True
    reasoning_effort: String | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    sources_footer: StrictBool | None = None
    source_links: Literal["none", "list", "text"] | None = None
    answers: Literal["strict", "mixed"] | None = None


class CompletionRequest(_Body):
    """POST /v1/completions. A prompt of token ids is in the model's own vocabulary."""

    model: String = Field(min_length=1, max_length=512)
    prompt: String | list[String] | list[StrictInt] | list[list[StrictInt]]
    stream: StrictBool | None = False
    stream_options: StreamOptions | None = None
    n: StrictInt | None = Field(None, ge=1, le=128)
    best_of: StrictInt | None = Field(None, ge=1, le=128)
    max_tokens: StrictInt | None = Field(16, ge=1, le=1 << 24)
    temperature: Number | None = Field(None, ge=0, le=2)
    top_p: Number | None = Field(None, gt=0, le=1)
    top_k: StrictInt | None = Field(None, ge=0, le=1 << 20)
    min_p: Number | None = Field(None, ge=0, le=1)
    repetition_penalty: Number | None = Field(None, gt=0, le=2)
    frequency_penalty: Number | None = Field(None, ge=-2, le=2)
    presence_penalty: Number | None = Field(None, ge=-2, le=2)
    seed: StrictInt | None = Field(None, ge=-(1 << 63), lt=1 << 63)
    stop: String | Annotated[list[String], Field(max_length=16)] | None = None
    logit_bias: dict[str, Annotated[Number, Field(ge=-100, le=100)]] | None = Field(None, max_length=1024)
    logprobs: StrictInt | None = Field(None, ge=0, le=20)
    echo: StrictBool | None = False
    suffix: String | None = None


class TokenizeRequest(_Body):
    """POST /v1/tokenize: a text, or a conversation as the model's template writes it."""

    prompt: String | None = None
    messages: list[ChatMessage] | None = Field(None, min_length=1, max_length=10_000)


class DetokenizeRequest(_Body):
    """POST /v1/detokenize."""

    tokens: list[StrictInt] = Field(max_length=1 << 20)


class EmbeddingRequest(_Body):
    """POST /v1/embeddings."""

    model: String = Field(min_length=1, max_length=512)
    input: String | list[String] | list[StrictInt] | list[list[StrictInt]]
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: StrictInt | None = Field(None, ge=1)


# OpenAI's other fields, with the values that ask for nothing. What is not in these tables is no field of
# OpenAI's, and ignored. Accepted because nothing is left to do: `user`, `safety_identifier` (labels for whom
# nobody asks here) and `prompt_cache_key` (the cache is found by the text itself).
CACHE_FIELDS: dict[str, tuple[Any, ...]] = {
    "prompt_cache_retention": (None, "in_memory"),
    "prompt_cache_options": (None, {}, {"mode": "implicit"}),
}
CHAT_FIELDS: dict[str, tuple[Any, ...]] = {
    "functions": (None, []),
    "function_call": (None, "none", "auto"),
    "audio": (None,),
    "modalities": (None, ["text"]),
    "moderation": (None,),
    "prediction": (None,),
    "service_tier": (None, "auto", "default"),
    "store": (None, False),
    "metadata": (None, {}),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
    **CACHE_FIELDS,
}
_INSTEAD = {
    "functions": "send tools",
    "function_call": "send tool_choice",
    "metadata": "it belongs to store, which /v1/responses has",
    "store": "/v1/responses keeps answers",
    "web_search_options": "nothing leaves this machine",
}
# Efforts in which a model that can answer at once does so.
_NO_EFFORT = frozenset({"none", "minimal"})
_EFFORTS = frozenset({*_NO_EFFORT, "low", "medium", "high", "xhigh"})


def refuse_fields(body: BaseModel, unsupported: Mapping[str, tuple[Any, ...]]) -> None:
    """Refuse what the service cannot do rather than ignore it. Raises: UnsupportedParameter."""
    extra = body.model_extra or {}
    for name, harmless in unsupported.items():
        # `1 == True` in Python: compare the types too.
        if not any(type(extra.get(name)) is type(value) and extra.get(name) == value for value in harmless):
            instead = f": {_INSTEAD[name]}" if name in _INSTEAD else ""
            raise UnsupportedParameter(f"{name} is not supported here{instead}", param=name)


def read_switch(body: ChatRequest) -> bool | None:
    """Read `enable_thinking`, the other way to ask for thoughts.

    Raises: UnsupportedParameter for the rest, InvalidRequest.
    """
    given = body.chat_template_kwargs or {}
    if unknown := given.keys() - {"enable_thinking"}:
        raise UnsupportedParameter(
            f"chat_template_kwargs.{min(unknown)[:40]} is not supported here: enable_thinking is",
            param="chat_template_kwargs",
        )
    wanted = given.get("enable_thinking")
    if wanted is not None and not isinstance(wanted, bool):
        raise InvalidRequest("enable_thinking must be true or false", param="chat_template_kwargs")
    return wanted


def check_supported(body: ChatRequest) -> None:
    """Refuse what chat completions do not do here. Raises: UnsupportedParameter, InvalidRequest."""
    refuse_fields(body, CHAT_FIELDS)
    if (body.n or 1) > MOST_CHOICES:
        raise UnsupportedParameter(f"n={body.n} is not supported here: at most {MOST_CHOICES} is", param="n")
    check_stream_options(body.stream_options, is_stream=bool(body.stream))


def check_stream_options(options: StreamOptions | None, *, is_stream: bool) -> None:
    """Check what asks for a form of the stream. Raises: InvalidRequest, UnsupportedParameter."""
    if options is None:
        return
    if not is_stream:
        raise InvalidRequest("stream_options is only allowed with stream: true", param="stream_options")
    if options.include_obfuscation:
        raise UnsupportedParameter(
            "stream_options.include_obfuscation is not supported here",
            param="stream_options.include_obfuscation",
        )


def read_effort(effort: str | None, *, thinks: bool, param: str) -> bool | None:
    """Tell whether the model shall think first; None: as it does by itself.

    Raises: InvalidRequest, UnsupportedParameter for a model that never thinks.
    """
    if effort is None:
        return None
    if effort not in _EFFORTS:
        raise InvalidRequest(
            f"{param} {effort[:40]!r} is unknown: {', '.join(sorted(_EFFORTS))} are known", param=param
        )
    if effort in _NO_EFFORT:
        return False if thinks else None
    if not thinks:
        raise UnsupportedParameter(f"{param} is not supported by this model: it does not think", param=param)
    return True


def plain_messages(body: ChatRequest | TokenizeRequest) -> list[dict[str, Any]]:
    """Give role, text and calls of each message. Raises: UnsupportedParameter for images, sound, files."""
    plain = []
    for index, message in enumerate(body.messages or ()):
        param = f"messages.{index}"
        if message.role == "function":
            raise UnsupportedParameter(f"{param}: role {message.role} is not supported here", param=param)
        content = message.content if isinstance(message.content, str) else ""
        for part in message.content if isinstance(message.content, list) else ():
            if part.type not in ("text", "input_text", "output_text", "refusal"):
                raise UnsupportedParameter(
                    f"{param}: content of type {part.type[:40]!r} is not supported here: only text is",
                    param=param,
                )
            content += part.text or ""
        role = "system" if message.role == "developer" else message.role
        plain.append({"role": role, "content": content, **_calls_and_results(message, param)})
    return plain


def _calls_and_results(message: ChatMessage, param: str) -> dict[str, Any]:
    if message.role == "tool":
        return {"tool_call_id": message.tool_call_id or "", "name": message.name or ""}
    if message.role != "assistant" or not message.tool_calls:
        return {}
    calls = []
    for call in message.tool_calls:
        try:
            arguments = json.loads(call.function.arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise InvalidRequest(
                f"{param}: the arguments of call {call.id[:60]!r} are no JSON", param=param
            ) from error
        function = {"name": call.function.name, "arguments": arguments}
        calls.append({"id": call.id, "type": "function", "function": function})
    return {"tool_calls": calls}


def generation_params(body: ChatRequest, *, temperature: float, tenant: str) -> GenerationParams:
    """Translate how to draw the answer; `temperature` where the client gives none. Raises: InvalidRequest."""
    if body.top_logprobs is not None and not body.logprobs:
        raise InvalidRequest("top_logprobs needs logprobs: true", param="top_logprobs")
    return sampling(
        body,
        temperature=temperature,
        max_tokens=body.max_completion_tokens or body.max_tokens,
        n_logprobs=(body.top_logprobs or 0) if body.logprobs else None,
        tenant=tenant,
    )


def sampling(
    body: ChatRequest | CompletionRequest,
    *,
    temperature: float,
    max_tokens: int | None,
    n_logprobs: int | None,
    tenant: str,
) -> GenerationParams:
    """Translate what chats and completions have in common. Raises: InvalidRequest."""
    stop = (body.stop,) if isinstance(body.stop, str) else tuple(body.stop or ())
    if any(not text or len(text) > 1024 for text in stop):
        raise InvalidRequest("stop: each string needs 1 to 1024 characters", param="stop")
    return GenerationParams(
        max_tokens=max_tokens,
        temperature=temperature if body.temperature is None else body.temperature,
        top_k=body.top_k or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
        min_p=body.min_p or 0.0,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        seed=body.seed,
        stop=stop,
        logit_bias=_logit_bias(body),
        n_logprobs=n_logprobs,
        tenant=tenant,
    )


def _logit_bias(body: ChatRequest | CompletionRequest) -> dict[int, float]:
    try:
        return {int(token): value for token, value in (body.logit_bias or {}).items()}
    except ValueError as error:
        raise InvalidRequest("logit_bias: keys must be token ids", param="logit_bias") from error


def now() -> int:
    """Give the time in whole seconds, as `created` wants it."""
    return int(time.time())


def usage(n_prompt: int, n_completion: int, *, n_thought: int = 0, n_cached: int = 0) -> dict[str, Any]:
    """Count the tokens of a request; `n_cached` of its prompt were known to the engine."""
    return {
        "prompt_tokens": n_prompt,
        "completion_tokens": n_completion,
        "total_tokens": n_prompt + n_completion,
        "prompt_tokens_details": {"cached_tokens": n_cached},
        "completion_tokens_details": {"reasoning_tokens": n_thought},
    }


def logprobs(deltas: list[Delta]) -> dict[str, Any]:
    """Give the `logprobs` of a choice."""
    return {
        "content": [
            {
                "token": item.token,
                "bytes": list(item.bytes),
                "logprob": item.logprob,
                "top_logprobs": [
                    {"token": token, "bytes": list(raw), "logprob": value} for token, raw, value in item.top
                ],
            }
            for delta in deltas
            for item in delta.logprobs
        ],
        "refusal": None,
    }


def sources_json(sources: tuple[Source, ...], cited: tuple[int, ...]) -> list[dict[str, Any]]:
    """Give the `sources` field of an answer."""
    return [source.as_json(cited=source.number in cited) for source in sources]
