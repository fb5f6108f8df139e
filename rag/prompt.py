"""Pack passages and history into a prompt, to an exact token budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from engine.errors import ContextTooLong
from rag.citations import Source, without_markers
from rag.language import is_chinese, sentences
from rag.ports import ChatModel
from rag.prompt_files import Prompts
from rag.query import Conversation
from rag.retriever import Passage

_LEAST_PASSAGE_TOKENS = 32
# By which the tokens of a prompt may differ from the sum over its parts.
_CLOSE = 24


@dataclass(frozen=True, slots=True)
class Prompt:
    """What the model reads, and the numbered passages in it."""

    token_ids: Sequence[int]
    sources: tuple[Source, ...]


def pack(
    conversation: Conversation,
    passages: Sequence[Passage],
    *,
    chat: ChatModel,
    context_tokens: int,
    room: int,
    instruction: str = "",
    thinking: bool | None = None,
    prompts: Prompts,
    rules: Literal["rules", "mixed"] = "rules",
) -> Prompt:
    """Fit the best passages and the latest history into `room` tokens, `context_tokens` of them passages.

    `instruction` takes the place of the rules about citing, for answers that are no prose; `rules`: which of
    the prompts says how to answer.
    The question always stays; passages go before history. Raises: ContextTooLong, where not even the question
    and the rules fit.
    """
    chinese = is_chinese(conversation.question)
    before = (
        f"{prompts.text('formed', chinese=chinese)} {instruction}"
        if instruction
        else prompts.text(rules, chinese=chinese)
    )
    write = partial(_messages, conversation, before, partial(prompts.text, "question", chinese=chinese))
    bare = write((), history=())
    least = len(chat.prompt_tokens(bare, thinking=thinking))
    if least > room:
        raise ContextTooLong(
            f"the question and its instructions have {least} tokens; {chat.name} has room for {room}"
        )
    sources, token_ids = _fit_passages(
        lambda sources: chat.prompt_tokens(write(sources, history=()), thinking=thinking),
        passages,
        chat,
        least=least,
        limit=min(room, least + context_tokens),
    )
    history = list(conversation.history)
    while history:
        with_history = chat.prompt_tokens(write(sources, history=history), thinking=thinking)
        if len(with_history) <= room:
            return Prompt(with_history, sources)
        _drop_oldest(history)
    return Prompt(token_ids, sources)


def _fit_passages(
    tokens_with: Callable[[Sequence[Source]], Sequence[int]],
    passages: Sequence[Passage],
    chat: ChatModel,
    *,
    least: int,
    limit: int,
) -> tuple[tuple[Source, ...], Sequence[int]]:
    """Choose the first passages that fit into `limit` tokens, `least` of them taken; give the prompt as well.

    Whole prompts are cut into tokens only where it is close: a sum over the parts tells as much before.
    """
    fitted: tuple[Source, ...] = ()
    n_tokens = least
    for passage in passages:
        text = disarm(without_markers(passage.text), chat)
        added = (*fitted, Source(len(fitted) + 1, passage, text))
        n_with = n_tokens + chat.count_tokens("\n\n" + _entry(added[-1]))
        if abs(limit - n_with) <= _CLOSE:
            n_with = len(tokens_with(added))
        if n_with > limit:
            # The first passage is cut rather than left out; later ones make way for shorter ones after them.
            if fitted:
                continue
            added, n_with = _cut_to(limit, tokens_with, added[0], chat), limit
            if not added:
                break
        fitted, n_tokens = added, n_with
    token_ids = tokens_with(fitted)
    while len(token_ids) > limit and fitted:
        fitted = fitted[:-1]
        token_ids = tokens_with(fitted)
    return fitted, token_ids


def _cut_to(
    limit: int, tokens_with: Callable[[Sequence[Source]], Sequence[int]], source: Source, chat: ChatModel
) -> tuple[Source, ...]:
    """Shorten the only source until the prompt fits; none where not even a word of it does."""
    excess = len(tokens_with((source,))) - limit
    text = _cut(source.prompt_text, chat, excess) if excess > 0 else source.prompt_text
    while text and len(tokens_with((replace(source, prompt_text=text),))) > limit:
        text = text[: len(text) * 3 // 4]
    return (replace(source, prompt_text=text),) if text else ()


def _messages(
    conversation: Conversation,
    rules: str,
    ask: Callable[..., str],
    sources: Sequence[Source],
    *,
    history: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    system = [m["content"] for m in history if m["role"] == "system"]
    listing = "\n\n".join(map(_entry, sources))
    return [
        {"role": "system", "content": "\n\n".join((rules, *system))},
        *({"role": m["role"], "content": m["content"]} for m in history if m["role"] != "system"),
        {
            "role": "user",
            "content": ask(sources=listing, question=conversation.question),
        },
    ]


def _entry(source: Source) -> str:
    return f"[{source.number}] {_heading(source.passage)}\n{source.prompt_text}"


def _heading(passage: Passage) -> str:
    # Not the path: small models copy it instead of answering.
    return " > ".join(dict.fromkeys((passage.title, *passage.heading_path)))


def _drop_oldest(history: list[dict[str, Any]]) -> None:
    """Forget the oldest turn; instructions of the client go last."""
    for index, message in enumerate(history):
        if message["role"] != "system":
            del history[index]
            return
    del history[0]


def _cut(text: str, chat: ChatModel, excess: int) -> str:
    """Leave off sentences at the end until `excess` tokens are gone."""
    keep = max(_LEAST_PASSAGE_TOKENS, chat.count_tokens(text) - excess)
    kept = ""
    for sentence in sentences(text):
        longer = f"{kept} {sentence}".strip()
        if chat.count_tokens(longer) > keep:
            break
        kept = longer
    return kept or text[: keep * 2]


def disarm(text: str, chat: ChatModel) -> str:
    """Break up what the tokenizer would read as control tokens: a document must not end a turn."""
    if chat.tokenize(text, special=True) == chat.tokenize(text, special=False):
        return text
    for mark in ("<", "[", "|"):
        text = text.replace(mark, mark + " ")
        if chat.tokenize(text, special=True) == chat.tokenize(text, special=False):
            break
    return text
