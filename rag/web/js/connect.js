// What other programs need to know, ready to copy.

import { button, fill, h } from "./dom.js";
import { copyText } from "./copy.js";
import { t } from "./i18n.js";
import { library } from "./library.js";
import { ALL } from "./session.js";
import { getKey } from "./settings.js";

let chosen = "next";
let model = ALL;

export function connectView(root) {
  const select = h("select", { class: "field", id: "connect-model", onchange: () => { model = select.value; draw(); } });
  const tabs = h("div", { class: "tabs", role: "group", "aria-label": t("connect.programs") });
  const body = h("div", { class: "connect-body" });

  function draw() {
    const { collections, models } = library.state;
    const names = [ALL, ...collections.filter((one) => one.n_chunks > 0).map((one) => one.model), models.chat?.name].filter(Boolean);
    fill(select, names.map((name) => h("option", { value: name }, name)));
    select.value = names.includes(model) ? model : ALL;
    fill(tabs, Object.keys(PROGRAMS).map((name) => h("button", { type: "button", class: "tab", "aria-pressed": String(name === chosen), onclick: () => { chosen = name; draw(); } }, t(`connect.${name}`))));
    fill(body, PROGRAMS[chosen](select.value));
  }

  library.addEventListener("change", draw);
  fill(
    root,
    h(
      "div",
      { class: "page narrow" },
      h("header", { class: "page-head" }, h("h1", null, t("nav.connect"))),
      h("p", { class: "lead" }, t("connect.lead")),
      h("dl", { class: "facts" }, fact(t("connect.url"), `${location.origin}/v1`), h("div", null, h("dt", null, h("label", { for: "connect-model" }, t("connect.model"))), h("dd", null, select)), h("div", null, h("dt", null, t("connect.key")), h("dd", null, getKey() ? t("connect.key.needed") : t("connect.key.any")))),
      tabs,
      body,
    ),
  );
  draw();
  return {
    title: t("nav.connect"),
    focus: () => select.focus(),
    leave: () => library.removeEventListener("change", draw),
  };
}

function fact(name, value) {
  const copy = button(t("copy"), { icon: "copy", bare: true, onclick: () => copyText(value, copy) });
  return h("div", null, h("dt", null, name), h("dd", null, h("code", null, value), copy));
}

function block(text, caption) {
  const copy = button(t("copy"), { icon: "copy", onclick: () => copyText(text, copy) });
  return h("div", { class: "code-frame" }, h("div", { class: "code-head" }, h("span", null, caption), copy), h("pre", { tabindex: "0" }, h("code", null, text)));
}

const key = () => (getKey() ? "YOUR-KEY" : "any");
const auth = () => (getKey() ? ' -H "Authorization: Bearer YOUR-KEY"' : "");
const question = () => t("connect.question");

/** The address as a container sees it: its own localhost is the container itself. */
function fromContainer() {
  const isLocal = ["localhost", "127.0.0.1", "[::1]"].includes(location.hostname);
  return isLocal ? `${location.protocol}//host.docker.internal${location.port ? `:${location.port}` : ""}` : location.origin;
}

const PROGRAMS = {
  next: (name) => [
    h("h2", null, t("connect.next.server")),
    h("p", null, t("connect.next.server.text")),
    block(
      [
        "docker run -p 127.0.0.1:3000:3000 --add-host host.docker.internal:host-gateway \\",
        `  -e BASE_URL=${fromContainer()} \\`,
        `  -e OPENAI_API_KEY=${key()} \\`,
        `  -e CUSTOM_MODELS='-all,+${name}@OpenAI=${t("connect.next.name")}' \\`,
        `  -e DEFAULT_MODEL=${name} \\`,
        "  yidadaa/chatgpt-next-web",
      ].join("\n"),
      t("connect.next.docker"),
    ),
    h("h2", null, t("connect.next.browser")),
    h("p", null, t("connect.next.browser.text")),
    h("dl", { class: "facts" }, fact(t("connect.next.endpoint"), location.origin), fact(t("connect.next.apiKey"), key()), fact(t("connect.next.custom"), name), fact(t("connect.next.model"), name)),
  ],
  langchain: (name) => [
    h("p", null, t("connect.langchain.text")),
    block("pip install langchain-openai", t("connect.install")),
    block(
      [
        "from langchain_openai import ChatOpenAI",
        "",
        `model = ChatOpenAI(model="${name}", base_url="${location.origin}/v1", api_key="${key()}")`,
        `print(model.invoke("${question()}").content)`,
      ].join("\n"),
      "Python",
    ),
    block(
      [
        "from langchain_openai import OpenAIEmbeddings",
        "",
        "embeddings = OpenAIEmbeddings(",
        `    model="text-embedding-3-small", base_url="${location.origin}/v1", api_key="${key()}",`,
        "    check_embedding_ctx_length=False,",
        ")",
      ].join("\n"),
      t("connect.embeddings"),
    ),
  ],
  openai: (name) => [
    h("p", null, t("connect.openai.text")),
    block("pip install openai", t("connect.install")),
    block(
      [
        "from openai import OpenAI",
        "",
        `client = OpenAI(base_url="${location.origin}/v1", api_key="${key()}")`,
        "reply = client.chat.completions.create(",
        `    model="${name}",`,
        `    messages=[{"role": "user", "content": "${question()}"}],`,
        ")",
        "print(reply.choices[0].message.content)",
        'for source in reply.model_extra["sources"]:',
        '    print(source["number"], source["path"])',
      ].join("\n"),
      "Python",
    ),
  ],
  curl: (name) => [
    h("p", null, t("connect.curl.text")),
    block(
      [
        `curl -N ${location.origin}/v1/chat/completions${auth()} -H "Content-Type: application/json" -d '{`,
        `  "model": "${name}", "stream": true,`,
        `  "messages": [{"role": "user", "content": "${question()}"}]`,
        "}'",
      ].join("\n"),
      t("connect.terminal"),
    ),
    block(
      [
        `curl ${location.origin}/v1/library/search${auth()} -H "Content-Type: application/json" \\`,
        `  -d '{"query": "${question()}", "limit": 5}'`,
      ].join("\n"),
      t("connect.searchOnly"),
    ),
  ],
};
