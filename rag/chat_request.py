"""A chat completion's request, read: what is asked, and how the answer is drawn."""

from dataclasses import replace

from rag import wire
from rag.asking import Ask
from rag.forms import read_response_format
from rag.models import Target
from rag.ports import ChatModel
from rag.tools import read_tools


def read_chat(
    body: wire.ChatRequest, target: Target, *, chat: ChatModel | None, with_footer: bool, tenant: str
) -> Ask:
    """Check a request and say what it asks of `target`; `with_footer` where the request does not say.

    Raises: InvalidRequest, UnsupportedParameter.
    """
    wire.check_supported(body)
    messages = wire.plain_messages(body)
    thinks = chat is not None and chat.thinks
    thinking = wire.read_effort(body.reasoning_effort, thinks=thinks, param="reasoning_effort")
    switch = wire.read_switch(body)
    params = wire.generation_params(body, temperature=target.usual_temperature, tenant=tenant)
    is_parallel = body.parallel_tool_calls is not False
    tools = read_tools(body.tools, body.tool_choice, chat=chat, is_parallel=is_parallel)
    form = read_response_format(body.response_format, chat=chat)
    if form is not None:
        params = replace(params, grammar=form.grammar)
    return Ask(
        target,
        messages,
        params,
        with_footer=with_footer if body.sources_footer is None else body.sources_footer,
        form=form,
        tools=tools,
        thinking=thinking if switch is None else switch,
        answers=body.answers,
    )
