"""Pack passages and history into a prompt, to an exact token budget."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
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
    sources = _fit_passages(write, passages, chat, min(room, least + context_tokens))
    history = list(conversation.history)
    while True:
        token_ids = chat.prompt_tokens(write(sources, history=history), thinking=thinking)
        if len(token_ids) <= room:
            return Prompt(token_ids, sources)
        if not history:  # cannot be: the passages were fitted without it
            raise ContextTooLong(f"the prompt has {len(token_ids)} tokens; {chat.name} has room for {room}")
        _drop_oldest(history)


def _fit_passages(
    write: Callable[..., list[dict[str, Any]]], passages: Sequence[Passage], chat: ChatModel, limit: int
) -> tuple[Source, ...]:
    fitted: tuple[Source, ...] = ()
    for passage in passages:
        text = disarm(without_markers(passage.text), chat)
        added = (*fitted, Source(len(fitted) + 1, passage, text))
        spare = limit - len(chat.prompt_tokens(write(added, history=())))
        if spare < 0:
            # The first passage is cut rather than left out; later ones make way for shorter ones after them.
            if fitted:
                continue
            added = (Source(1, passage, _cut(text, chat, -spare)),)
            while len(chat.prompt_tokens(write(added, history=()))) > limit:
                shorter = added[0].prompt_text[: len(added[0].prompt_text) * 3 // 4]
                if not shorter:
                    return ()
                added = (Source(1, passage, shorter),)
        fitted = added
    return fitted


def _messages(
    conversation: Conversation,
    rules: str,
    ask: Callable[..., str],
    sources: Sequence[Source],
    *,
    history: Sequence[dict[str, Any]],
) -> list[dict[str, Any]]:
    system = [m["content"] for m in history if m["role"] == "system"]
    listing = "\n\n".join(f"[{s.number}] {_heading(s.passage)}\n{s.prompt_text}" for s in sources)
    return [
        {"role": "system", "content": "\n\n".join((rules, *system))},
        *({"role": m["role"], "content": m["content"]} for m in history if m["role"] != "system"),
        {
            "role": "user",
            "content": ask(sources=listing, question=conversation.question),
        },
    ]


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
