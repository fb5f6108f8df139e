"""Chat templates: identical to transformers, and harmless."""

import json
import threading
from pathlib import Path

import pytest

from engine.chat_template import MAX_SOURCE_BYTES, ChatTemplate
from engine.errors import TemplateError
from tests.engine.gguf_metadata import read_metadata

DATA = Path(__file__).parents[1] / "data"
GOLDEN = json.loads((DATA / "chat_template.json").read_text(encoding="utf-8"))
FAMILIES = json.loads((DATA / "chat_templates.json").read_text(encoding="utf-8"))
USER = [{"role": "user", "content": "Hello"}]


def template(source: str) -> ChatTemplate:
    return ChatTemplate(source, bos_token="<s>", eos_token="</s>")


@pytest.fixture(scope="module")
def smollm2() -> ChatTemplate:
    return ChatTemplate(GOLDEN["template"], bos_token=GOLDEN["bos_token"], eos_token=GOLDEN["eos_token"])


@pytest.mark.parametrize("case", GOLDEN["cases"], ids=[case["name"] for case in GOLDEN["cases"]])
def test_same_text_as_transformers(case: dict[str, object], smollm2: ChatTemplate) -> None:
    rendered = smollm2.render(
        case["messages"],  # type: ignore[arg-type]
        add_generation_prompt=bool(case["add_generation_prompt"]),
    )
    assert rendered == case["text"]


@pytest.mark.parametrize("name", FAMILIES["templates"])
def test_every_family_is_written_as_transformers_writes_it(name: str) -> None:
    family = FAMILIES["templates"][name]
    made = ChatTemplate(family["template"], bos_token=family["bos_token"], eos_token=family["eos_token"])
    for case, arguments in FAMILIES["cases"].items():
        expected = family["texts"][case]
        if expected is None:
            with pytest.raises(TemplateError):
                made.render(**FAMILIES["variables"], **arguments)
        else:
            assert made.render(**FAMILIES["variables"], **arguments) == expected, case


SYSTEM = {"role": "system", "content": "Rules."}
ASKED_TWICE = [SYSTEM, *USER, {"role": "user", "content": "again"}]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        pytest.param(
            "gemma-2",
            "<bos><start_of_turn>user\nRules.\n\nHello\n\nagain<end_of_turn>\n<start_of_turn>model\n",
            id="refused",
        ),
        pytest.param("mistral-0.2", "<s>[INST] Rules.\n\nHello\n\nagain [/INST]", id="no-such-role"),
        pytest.param("minicpm", "Rules.<用户>Hello<AI><用户>again<AI>", id="taken"),
    ],
)
def test_rules_reach_models_that_know_no_system_message(name: str, expected: str) -> None:
    family = FAMILIES["templates"][name]
    made = ChatTemplate(family["template"], bos_token=family["bos_token"], eos_token=family["eos_token"])
    assert made.write(ASKED_TWICE) == expected


def test_rules_that_a_template_drops_stand_before_the_first_question() -> None:
    drops = template(
        "{% for m in messages if m.role != 'system' %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    )
    assert drops.write([SYSTEM, *USER]) == "user: Rules.\n\nHello\n"
    assert drops.write([SYSTEM]) == "user: Rules.\n"
    assert drops.write(USER) == "user: Hello\n"


def test_what_a_template_refuses_for_good_stays_refused() -> None:
    with pytest.raises(TemplateError, match="never"):
        template("{{ raise_exception('never') }}").write(ASKED_TWICE)


def test_golden_template_is_that_of_the_model(starter_chat_gguf: Path) -> None:
    assert read_metadata(starter_chat_gguf)["tokenizer.chat_template"] == GOLDEN["template"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("{{ bos_token }}{{ messages[0].content }}{{ eos_token }}", "<s>Hello</s>", id="tokens"),
        pytest.param("{% if true %}\n  x\n{% endif %}\n", "  x\n", id="blocks-are-trimmed"),
        pytest.param("{{ {'a': '世<'} | tojson }}", '{"a": "世<"}', id="tojson-does-not-escape"),
        pytest.param(
            "{% for i in range(9) %}{% if i > 2 %}{% break %}{% endif %}{{ i }}{% endfor %}",
            "012",
            id="loops",
        ),
        pytest.param("{% generation %}x{% endgeneration %}", "x", id="generation-tag"),
        pytest.param("{{ tools is none }}{{ strftime_now('%Y') | length }}", "True4", id="variables"),
        pytest.param("{% set ns = namespace(n=1) %}{% set ns.n = 2 %}{{ ns.n }}", "2", id="namespace"),
        pytest.param("{{ '😀' }}", "😀", id="emoji"),
    ],
)
def test_environment_is_that_of_transformers(source: str, expected: str) -> None:
    assert template(source).render(USER) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        pytest.param("{% for", "TemplateSyntaxError", id="syntax"),
        pytest.param("{{ raise_exception('no system role') }}", "no system role", id="refuses"),
        pytest.param("{{ messages[5].content.x }}", "UndefinedError", id="undefined"),
        pytest.param("{{ ''.__class__.__mro__ }}", "SecurityError", id="escape"),
        pytest.param("{{ messages.append(1) }}", "SecurityError", id="immutable"),
        pytest.param("{% include '/etc/passwd' %}", "TypeError|no loader", id="include"),
        pytest.param("{{ range(10**9) | list }}", "OverflowError", id="range"),
        pytest.param(
            "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}",
            "200 ms",
            id="loops",
        ),
        pytest.param(
            "{% set n = 10**9 %}{{ ('a' * n) | length }}{{ 'a' * n }}", "memory|200 ms", id="memory"
        ),
        pytest.param("{{ messages[0].content * 9**9 }}", "memory|200 ms|longer than", id="multiplied"),
        pytest.param("{{ (messages | length + 8) ** (9 ** 9) }}", "200 ms|memory", id="power"),
        pytest.param("{{ 9 ** (9 ** 9) }}", "2 s|memory", id="power-while-compiling"),
        pytest.param(
            "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "RecursionError|stopped", id="recursion"
        ),
        pytest.param(
            "{% for i in range(99999) %}0123456789012345{% endfor %}", "longer than 1048576", id="output"
        ),
        pytest.param(
            "{% set ns = namespace(x='ab') %}"
            "{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}",
            "memory|200 ms",
            id="doubling",
        ),
        pytest.param("{{ '%999999999d' % 1 }}", "memory|200 ms|longer than", id="format-width"),
        pytest.param("{{ 'x'.ljust(99999999999) }}", "memory|OverflowError", id="padding"),
    ],
)
def test_hostile_templates_are_errors(source: str, message: str) -> None:
    with pytest.raises(TemplateError, match=message):
        template(source).render(USER)


def test_works_again_after_it_was_stopped() -> None:
    loop = "{% for i in range(90000) %}{% for j in range(90000) %}{% endfor %}{% endfor %}"
    both = template("{% if boom %}" + loop + "{% endif %}ok")
    with pytest.raises(TemplateError, match="200 ms"):
        both.render(USER, boom=True)
    assert both.render(USER, boom=False) == "ok"


def test_renders_from_many_threads(smollm2: ChatTemplate) -> None:
    texts: list[str] = []
    threads = [
        threading.Thread(
            target=lambda i=i: texts.append(smollm2.render([{"role": "user", "content": str(i)}]))
        )
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(texts)) == 8


def test_source_too_long_is_refused() -> None:
    with pytest.raises(TemplateError, match=f"at most {MAX_SOURCE_BYTES}"):
        template("a" * (MAX_SOURCE_BYTES + 1))


def test_message_that_is_no_json_is_refused() -> None:
    with pytest.raises(TemplateError, match="cannot be written as JSON"):
        template("x").render([{"role": object()}])


def test_closed_template_starts_again() -> None:
    closed = template("{{ messages | length }}")
    closed.close()
    assert closed.render(USER) == "1"
