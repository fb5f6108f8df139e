"""Render conversations with `transformers` by the templates of many families: tests/data/chat_templates.json.

    python -m tests.golden.make_chat_templates LLAMA_CPP AXOLOTL

LLAMA_CPP is a folder of llama.cpp's sources (those in llama-cpp-python==0.3.36), whose tests hold the
templates of the models' makers; AXOLOTL one of axolotl==0.19.0, which ships Gemma 3's (it differs from the
maker's only in system messages of several parts). Needs: transformers. A case holds the text, or null where
the template refuses it.
"""

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

import jinja2
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

OUT = Path(__file__).parents[1] / "data" / "chat_templates.json"
FILES = {
    "qwen2.5": ("Qwen-Qwen2.5-7B-Instruct", "", "<|im_end|>"),
    "qwen3": ("Qwen-Qwen3-0.6B", "", "<|im_end|>"),
    "qwen3.5": ("Qwen3.5-4B", "", "<|im_end|>"),
    "llama-3.1": ("meta-llama-Llama-3.1-8B-Instruct", "<|begin_of_text|>", "<|eot_id|>"),
    "llama-3.2": ("meta-llama-Llama-3.2-3B-Instruct", "<|begin_of_text|>", "<|eot_id|>"),
    "mistral-nemo": ("mistralai-Mistral-Nemo-Instruct-2407", "<s>", "</s>"),
    "gemma-2": ("google-gemma-2-2b-it", "<bos>", "<eos>"),
    "phi-3.5": ("microsoft-Phi-3.5-mini-instruct", "<s>", "<|endoftext|>"),
    "deepseek-r1-distill": (
        "deepseek-ai-DeepSeek-R1-Distill-Qwen-32B",
        "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
        "<\uff5cend\u2581of\u2581sentence\uff5c>",
    ),
    "glm-4.6": ("GLM-4.6", "", "<|endoftext|>"),
    "minicpm5": ("openbmb-MiniCPM5-1B", "<s>", "<|im_end|>"),
    "hermes-2-pro for tools": (
        "NousResearch-Hermes-2-Pro-Llama-3-8B-tool_use",
        "<|begin_of_text|>",
        "<|im_end|>",
    ),
}
IN_CODE = {
    "chatml": ("teknium/OpenHermes-2.5-Mistral-7B", "", "<|im_end|>"),
    "mistral-0.2": ("mistralai/Mistral-7B-Instruct-v0.2 (NOTE", "<s>", "</s>"),
    "llama-2": ("TheBloke/FusionNet_34Bx2_MoE-AWQ", "<s>", "</s>"),
    "chatglm3": ("ChatGLM3", "", "</s>"),
    "glm-4": ("ChatGLM4", "", "<|endoftext|>"),
    "minicpm": ("MiniCPM-3B-OpenHermes", "<s>", "</s>"),
    "deepseek-v2": ("DeepSeek-V2", "<s>", "</s>"),
    "phi-4": ("phi-4", "", "<|im_end|>"),
    "megrez": ("Infinigence/Megrez-3B-Instruct", "", "<|turn_end|>"),
}
_CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + "
    "'<|im_end|>' + '\\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
_YI = (
    "{% if messages[0]['role'] == 'system' %}{% set system_message = messages[0]['content'] %}{% endif %}"
    "{% if system_message is defined %}{{ system_message }}{% endif %}{% for message in messages %}"
    "{% set content = message['content'] %}{% if message['role'] == 'user' %}"
    "{{ '<|im_start|>user\\n' + content + '<|im_end|>\\n<|im_start|>assistant\\n' }}"
    "{% elif message['role'] == 'assistant' %}{{ content + '<|im_end|>' + '\\n' }}{% endif %}"
    "{% endfor %}"
)
PUBLISHED = {
    "internlm2": ("{{ bos_token }}" + _CHATML, "<s>", "</s>"),
    "yi-1.5": (_YI, "<|startoftext|>", "<|im_end|>"),
}
"""As tokenizer_config.json of internlm/internlm2-chat-7b and 01-ai/Yi-1.5-6B-Chat have them."""
TOOL = {
    "type": "function",
    "function": {
        "name": "搜索",
        "description": "Search <the> documents",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}
CALL = {"type": "function", "function": {"name": "搜索", "arguments": {"query": "年假 & leave"}}}


def turn(role: str, content: str, **more: Any) -> dict[str, Any]:
    """One message."""
    return {"role": role, "content": content, **more}


SYSTEM, HELLO, ANSWER = (
    turn("system", "Answer briefly. 请用中文。"),
    turn("user", "Hello "),
    turn("assistant", " Hi!"),
)
THOUGHT = turn("assistant", "<think>\nhmm\n</think>\n\nHi!")
CASES: dict[str, dict[str, Any]] = {
    "user": {"messages": [HELLO]},
    "no-prompt": {"messages": [HELLO, ANSWER], "add_generation_prompt": False},
    "system": {"messages": [SYSTEM, HELLO]},
    "turns": {"messages": [SYSTEM, HELLO, ANSWER, turn("user", "再见\n")]},
    "thought": {"messages": [HELLO, THOUGHT, turn("user", "Bye")]},
    "quick": {"messages": [HELLO], "enable_thinking": False},
    "tools": {"messages": [HELLO], "tools": [TOOL]},
    "called": {
        "messages": [
            HELLO,
            turn("assistant", "", tool_calls=[{**CALL, "id": "call00001"}]),
            turn("tool", "12 days", tool_call_id="call00001", name="搜索"),
        ],
        "tools": [TOOL],
    },
}
DATE = {"date_string": "26 Jul 2024"}
"""Else some templates write today's."""


def templates(sources: Path, axolotl: Path) -> dict[str, tuple[str, str, str]]:
    """Read template, BOS and EOS of each family."""
    found = {
        name: ((sources / "models" / "templates" / f"{file}.jinja").read_text("utf-8"), bos, eos)
        for name, (file, bos, eos) in FILES.items()
    }
    code = (sources / "tests" / "test-chat-template.cpp").read_text("utf-8")
    for name, (title, bos, eos) in IN_CODE.items():
        literal = re.search(
            r'"' + re.escape(title) + r'[^\n]*\n\s*/\* \.template_str= \*/ (?:U8C\()?("(?:[^"\\]|\\.)*")',
            code,
        )
        assert literal is not None, title
        found[name] = (ast.literal_eval(literal.group(1)), bos, eos)
    gemma_3 = axolotl / "utils" / "chat_templates" / "templates" / "gemma3.jinja"
    found["gemma-3"] = (gemma_3.read_text("utf-8"), "<bos>", "<eos>")
    return found | PUBLISHED


def main(sources: Path, axolotl: Path) -> None:
    """Write what each template makes of every case."""
    golden = {}
    for name, (template, bos, eos) in templates(sources, axolotl).items():
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer(models.BPE()), bos_token=bos, eos_token=eos, chat_template=template
        )
        texts: dict[str, str | None] = {}
        for case, given in CASES.items():
            arguments: dict[str, Any] = {"add_generation_prompt": True, **DATE, **given}
            conversation = arguments.pop("messages")
            try:
                texts[case] = tokenizer.apply_chat_template(conversation, tokenize=False, **arguments)
            except (jinja2.TemplateError, TypeError):
                texts[case] = None
        golden[name] = {"template": template, "bos_token": bos, "eos_token": eos, "texts": texts}
    written = {"cases": CASES, "variables": DATE, "templates": golden}
    OUT.write_text(json.dumps(written, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
