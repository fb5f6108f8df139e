"""GET /: what this is and how to connect, for whoever opens the address in a browser."""

import html

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

router = APIRouter()

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Quarry</title>
<style>body{{font:1rem/1.5 system-ui,sans-serif;max-width:42rem;margin:3rem auto;padding:0 1rem;\
color-scheme:light dark}}pre{{overflow:auto}}</style>
<h1>Quarry</h1>
<p>Ask your documents, over OpenAI's API. / 用 OpenAI 接口向自己的文档提问。</p>
<h2>curl</h2>
<pre>curl {base}/v1/chat/completions -H "Content-Type: application/json" \\
  -d '{{"model": "quarry", "messages": [{{"role": "user", "content": "What is Quarry?"}}]}}'</pre>
<h2>ChatGPT-Next-Web</h2>
<pre>BASE_URL={base}
CUSTOM_MODELS=-all,+quarry@OpenAI=My documents
DEFAULT_MODEL=quarry</pre>
<h2>LangChain</h2>
<pre>ChatOpenAI(model="quarry", base_url="{base}/v1", api_key="any")</pre>
</html>
"""
# Nothing is loaded and nothing runs: the page is text.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"


@router.get("/", include_in_schema=False)
async def page(request: Request) -> HTMLResponse:
    """Show the settings for other programs; the address is the one that was asked, which the gate checked."""
    base = html.escape(str(request.base_url).rstrip("/"))
    return HTMLResponse(_PAGE.format(base=base), headers={"Content-Security-Policy": _POLICY})
