"""Chat templates for files that hold none: first by what their vocabulary marks turns with, then by name.

The forms are those with which the models were trained, from their makers' own code: Qwen's make_context,
ChatGLM3's build_chat_input, MiniCPM's chat, Chinese-LLaMA-Alpaca-2's scripts, and the templates that later
files of the same families hold.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DefaultTemplate:
    """A form of conversation; `label` is what messages call it. The first that fits is taken."""

    label: str
    source: str
    tokens: tuple[str, ...] = ()
    """Found in the vocabulary of every model that was trained with it, and in few others."""
    names: tuple[str, ...] = ()
    """Parts of the names of models that mark turns by plain text."""


_EACH = "{%- for message in messages -%}"
_END = "{%- endfor -%}"
_IF_USER = "{%- if message['role'] == 'user' -%}"
_IF_ASSISTANT = "{%- elif message['role'] == 'assistant' -%}"
_FI = "{%- endif -%}"
_IF_PROMPT = "{%- if add_generation_prompt -%}"
_CONTENT = "message['content']"


def _by_role(start: str, between: str, end: str, assistant: str) -> str:
    """Spell every message alike, between its role and an end."""
    return (
        f"{_EACH}{{{{- '{start}' + message['role'] + '{between}' + {_CONTENT} + '{end}' -}}}}{_END}"
        f"{_IF_PROMPT}{{{{- '{assistant}' -}}}}{_FI}"
    )


def _with_system(default: str) -> str:
    """Take the system's message off the front, into `system`; `rest` is what follows it."""
    return (
        "{%- if messages and messages[0]['role'] == 'system' -%}"
        "{%- set system = messages[0]['content'] -%}{%- set rest = messages[1:] -%}"
        f"{{%- else -%}}{{%- set system = '{default}' -%}}{{%- set rest = messages -%}}{_FI}"
    )


_REST = "{%- for message in rest -%}"
_CHATML = _by_role("<|im_start|>", "\\n", "<|im_end|>\\n", "<|im_start|>assistant\\n")


def _llama_2(default: str) -> str:
    """Write Llama 2's form, in which every question begins a text of its own."""
    return (
        f"{_with_system(default)}{_REST}{_IF_USER}{{{{- bos_token + '[INST] ' -}}}}"
        "{%- if loop.first and system -%}{{- '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' -}}{%- endif -%}"
        f"{{{{- {_CONTENT}.strip() + ' [/INST]' -}}}}"
        f"{_IF_ASSISTANT}{{{{- ' ' + {_CONTENT}.strip() + ' ' + eos_token -}}}}{_FI}{_END}"
    )


CHATML = DefaultTemplate("ChatML", _CHATML, tokens=("<|im_start|>", "<|im_end|>"))
_QWEN = DefaultTemplate(
    "Qwen's ChatML",
    "{%- if not messages or messages[0]['role'] != 'system' -%}"
    "{{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' -}}{%- endif -%}" + _CHATML,
    tokens=CHATML.tokens,
)
_TEMPLATES = (
    DefaultTemplate(
        "Llama 3's",
        "{{- bos_token -}}"
        + _by_role(
            "<|start_header_id|>",
            "<|end_header_id|>\\n\\n",
            "<|eot_id|>",
            "<|start_header_id|>assistant<|end_header_id|>\\n\\n",
        ),
        tokens=("<|start_header_id|>", "<|eot_id|>"),
    ),
    DefaultTemplate(
        "Phi-4's",
        _by_role("<|im_start|>", "<|im_sep|>", "<|im_end|>", "<|im_start|>assistant<|im_sep|>"),
        tokens=("<|im_start|>", "<|im_sep|>"),
    ),
    CHATML,
    DefaultTemplate(
        "Gemma's",
        "{{- bos_token -}}"
        + _with_system("")
        + _REST
        + "{%- set role = 'model' if message['role'] == 'assistant' else message['role'] -%}"
        "{{- '<start_of_turn>' + role + '\\n' -}}"
        "{%- if loop.first and system -%}{{- system + '\\n\\n' -}}{%- endif -%}"
        f"{{{{- {_CONTENT}.strip() + '<end_of_turn>\\n' -}}}}{_END}"
        f"{_IF_PROMPT}{{{{- '<start_of_turn>model\\n' -}}}}{_FI}",
        tokens=("<start_of_turn>", "<end_of_turn>"),
    ),
    DefaultTemplate(
        "Phi-3's",
        _by_role("<|", "|>\\n", "<|end|>\\n", "<|assistant|>\\n"),
        tokens=("<|user|>", "<|assistant|>", "<|end|>"),
    ),
    DefaultTemplate(
        "GLM-4's",
        "{{- '[gMASK]<sop>' -}}" + _by_role("<|", "|>\\n", "", "<|assistant|>"),
        tokens=("[gMASK]", "<sop>", "<|user|>"),
    ),
    DefaultTemplate(
        "ChatGLM3's",
        "{{- '[gMASK]sop' -}}" + _by_role("<|", "|>\\n ", "", "<|assistant|>"),
        tokens=("[gMASK]", "sop", "<|user|>"),
    ),
    DefaultTemplate(
        "DeepSeek's",
        "{{- bos_token -}}"
        + _with_system("")
        + "{{- system -}}"
        + _REST
        + f"{_IF_USER}{{{{- '<\uff5cUser\uff5c>' + {_CONTENT} -}}}}"
        + f"{_IF_ASSISTANT}{{{{- '<\uff5cAssistant\uff5c>' + {_CONTENT} + eos_token -}}}}{_FI}{_END}"
        + f"{_IF_PROMPT}{{{{- '<\uff5cAssistant\uff5c>' -}}}}{_FI}",
        tokens=("<\uff5cUser\uff5c>", "<\uff5cAssistant\uff5c>"),
    ),
    DefaultTemplate(
        "MiniCPM's",
        f"{{{{- bos_token -}}}}{_with_system('')}{{{{- system -}}}}{_REST}{_IF_USER}"
        f"{{{{- '<用户>' + {_CONTENT}.strip() + '<AI>' -}}}}"
        f"{_IF_ASSISTANT}{{{{- {_CONTENT}.strip() + eos_token -}}}}{_FI}{_END}",
        tokens=("<用户>", "<AI>"),
    ),
    DefaultTemplate(
        "Chinese-Alpaca-2's",
        _llama_2("You are a helpful assistant. 你是一个乐于助人的助手。"),
        names=("alpaca-2", "alpaca2"),
    ),
    DefaultTemplate("Llama 2's", _llama_2(""), names=("llama-2", "llama2")),
    DefaultTemplate(
        "Mistral's",
        f"{{{{- bos_token -}}}}{_with_system('')}{_REST}{_IF_USER}{{{{- '[INST] ' -}}}}"
        "{%- if loop.first and system -%}{{- system + '\\n\\n' -}}{%- endif -%}"
        f"{{{{- {_CONTENT} + ' [/INST]' -}}}}"
        f"{_IF_ASSISTANT}{{{{- ' ' + {_CONTENT} + eos_token -}}}}{_FI}{_END}",
        names=("mistral", "mixtral"),
    ),
    DefaultTemplate(
        "Zephyr's",
        _by_role("<|", "|>\\n", "</s>\\n", "<|assistant|>\\n"),
        names=("tinyllama", "zephyr"),
    ),
    DefaultTemplate(
        "DeepSeek's first",
        f"{{{{- bos_token -}}}}{_EACH}{_IF_USER}{{{{- 'User: ' + {_CONTENT} + '\\n\\n' -}}}}"
        f"{_IF_ASSISTANT}{{{{- 'Assistant: ' + {_CONTENT} + eos_token -}}}}"
        f"{{%- else -%}}{{{{- {_CONTENT} + '\\n\\n' -}}}}{_FI}{_END}"
        f"{_IF_PROMPT}{{{{- 'Assistant:' -}}}}{_FI}",
        names=("deepseek-llm",),
    ),
)


def default_template(
    *, names: Iterable[str], architecture: str, has_token: Callable[[str], bool]
) -> DefaultTemplate | None:
    """Return the form in which a model was taught to converse, None where nothing tells.

    `names` are what the file calls itself and is called.
    """
    if architecture == "qwen":
        return _QWEN
    words = " ".join(names).lower().replace("_", "-").replace(" ", "-")
    for form in _TEMPLATES:
        by_tokens = form.tokens and all(has_token(token) for token in form.tokens)
        if by_tokens or any(name in words for name in form.names):
            return form
    return None
