"""Files without a chat template are spoken to as their makers' templates speak (chat_templates.json)."""

import json
from pathlib import Path

import pytest

from engine.chat_template import ChatTemplate
from engine.default_templates import default_template

DATA = Path(__file__).parents[1] / "data"
FAMILIES = json.loads((DATA / "chat_templates.json").read_text(encoding="utf-8"))
TURNS = [
    {"role": "user", "content": "你好"},
    {"role": "assistant", "content": "Hi!"},
    {"role": "user", "content": "再见"},
]
RULES = {"role": "system", "content": "Rules."}


def written(
    messages: list[dict[str, str]], *, tokens: str = "", name: str = "x", architecture: str = "llama"
) -> str | None:
    known = set(tokens.split())
    form = default_template(names=(name,), architecture=architecture, has_token=known.__contains__)
    if form is None:
        return None
    return ChatTemplate(form.source, bos_token="<s>", eos_token="</s>").render(messages)


@pytest.mark.parametrize(
    ("family", "tokens", "name", "messages"),
    [
        pytest.param("chatml", "<|im_start|> <|im_end|>", "yi-6b-chat", [RULES, *TURNS], id="chatml"),
        pytest.param("chatglm3", "[gMASK] sop <|user|>", "chatglm3-6b", [RULES, *TURNS], id="chatglm3"),
        pytest.param("phi-4", "<|im_start|> <|im_sep|> <|im_end|>", "phi-4", [RULES, *TURNS], id="phi-4"),
        pytest.param("phi-3.5", "<|user|> <|assistant|> <|end|>", "phi-3", [RULES, *TURNS], id="phi-3"),
        pytest.param("gemma-2", "<start_of_turn> <end_of_turn>", "gemma-2-2b-it", TURNS, id="gemma"),
        pytest.param("deepseek-v2", "", "DeepSeek LLM 7B Chat", TURNS, id="deepseek"),
    ],
)
def test_as_the_familys_own_template(
    family: str, tokens: str, name: str, messages: list[dict[str, str]]
) -> None:
    own = ChatTemplate(FAMILIES["templates"][family]["template"], bos_token="<s>", eos_token="</s>")
    expected = own.render(messages)
    assert written(messages, tokens=tokens, name=name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(
            "chinese-alpaca-2-1.3b",
            "<s>[INST] <<SYS>>\nYou are a helpful assistant. 你是一个乐于助人的助手。\n<</SYS>>\n\n"
            "你好 [/INST] Hi! </s><s>[INST] 再见 [/INST]",
            id="chinese-alpaca-2",
        ),
        pytest.param(
            "Llama-2-7B-Chat", "<s>[INST] 你好 [/INST] Hi! </s><s>[INST] 再见 [/INST]", id="llama-2"
        ),
        pytest.param(
            "Mistral 7B Instruct", "<s>[INST] 你好 [/INST] Hi!</s>[INST] 再见 [/INST]", id="mistral"
        ),
        pytest.param(
            "TinyLlama-1.1B-Chat",
            "<|user|>\n你好</s>\n<|assistant|>\nHi!</s>\n<|user|>\n再见</s>\n<|assistant|>\n",
            id="tinyllama",
        ),
    ],
)
def test_by_name_where_plain_text_marks_the_turns(name: str, expected: str) -> None:
    assert written(TURNS, name=name) == expected


def test_the_first_qwen_always_has_a_system_message() -> None:
    marks = "<|im_start|> <|im_end|>"
    text = written(TURNS[:1], tokens=marks, architecture="qwen")
    assert text == (
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n"
        "<|im_start|>user\n你好<|im_end|>\n<|im_start|>assistant\n"
    )
    ruled = written([RULES, *TURNS[:1]], tokens=marks, architecture="qwen")
    assert ruled is not None
    assert ruled.startswith("<|im_start|>system\nRules.<|im_end|>\n<|im_start|>user")


def test_nothing_tells_the_form_of_a_model_that_only_continues_texts() -> None:
    assert written(TURNS, name="some-base-model") is None
