// Markdown of answers and documents to elements that cannot run, load or leave.
//
// What a model writes may have been written by whoever wrote a document: raw HTML is shown as text, pictures become
// their description, and what is left goes through a sanitiser that knows only the tags below.

import { Marked } from "../vendor/marked.js";
import DOMPurify from "../vendor/purify.js";
import { button, h } from "./dom.js";
import { t } from "./i18n.js";
import { openLink } from "./leave.js";
import { copyText } from "./copy.js";

const TAGS = [
  "p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "strong", "em", "del", "code", "pre", "blockquote",
  "ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td", "a",
];
const ATTRIBUTES = ["href", "start", "align", "class"];

const escape = (text) => text.replace(/[&<>"']/g, (mark) => `&#${mark.charCodeAt(0)};`);

const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ text, raw }) => escape(text ?? raw),
    image: ({ text, href }) => escape(text ? `[${text}]` : `[${href}]`),
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
  },
});

/** Give the elements of a text. `cite(number)` makes the element for a marker like [1], or gives null. */
export function renderMarkdown(text, { cite = () => null } = {}) {
  return finish(clean(marked.parse(text, { async: false })), cite);
}

function clean(html) {
  return DOMPurify.sanitize(html, {
    ALLOWED_TAGS: TAGS,
    ALLOWED_ATTR: ATTRIBUTES,
    ALLOW_DATA_ATTR: false,
    ALLOW_ARIA_ATTR: false,
    ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
    RETURN_DOM_FRAGMENT: true,
  });
}

/** Shows a text that grows: blocks that did not change keep their elements, and so a selection in them. */
export class GrowingMarkdown {
  constructor(container, options = {}) {
    this.container = container;
    this.options = options;
    this.blocks = [];
  }

  update(text) {
    const tokens = marked.lexer(text);
    const { links } = tokens;
    const blocks = tokens.filter((token) => token.type !== "space" && token.type !== "def");
    let same = 0;
    while (same < blocks.length && same < this.blocks.length && this.blocks[same].raw === blocks[same].raw) same += 1;
    for (const { nodes } of this.blocks.splice(same)) for (const node of nodes) node.remove();
    for (const block of blocks.slice(same)) {
      const list = Object.assign([block], { links });
      const fragment = finish(clean(marked.parser(list)), this.options.cite ?? (() => null));
      this.blocks.push({ raw: block.raw, nodes: [...fragment.childNodes] });
      this.container.append(fragment);
    }
  }
}

function finish(fragment, cite) {
  for (const element of fragment.querySelectorAll("[class]")) {
    if (element.localName !== "code") element.removeAttribute("class");
  }
  for (const link of fragment.querySelectorAll("a")) guard(link);
  for (const table of fragment.querySelectorAll("table")) {
    const frame = h("div", { class: "table-frame", tabindex: "0", role: "region", "aria-label": t("message.table") });
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const code of fragment.querySelectorAll("pre > code")) frameCode(code);
  markCitations(fragment, cite);
  return fragment;
}

/** A link asks before it leads out of the page: its address may carry away what it was told to. */
function guard(link) {
  const href = link.getAttribute("href");
  if (!href) {
    link.replaceWith(...link.childNodes);
    return;
  }
  link.setAttribute("rel", "noreferrer noopener");
  link.addEventListener("click", (event) => {
    event.preventDefault();
    openLink(href);
  });
  link.addEventListener("auxclick", (event) => event.preventDefault());
}

function frameCode(code) {
  const language = /(?:^|\s)language-([\w+#.-]{1,20})/.exec(code.className)?.[1] ?? "";
  code.removeAttribute("class");
  const pre = code.parentElement;
  pre.tabIndex = 0;
  const copy = button(t("copy"), { icon: "copy", bare: true, onclick: () => copyText(code.textContent, copy) });
  const frame = h("div", { class: "code-frame" }, h("div", { class: "code-head" }, h("span", null, language), copy));
  pre.replaceWith(frame);
  frame.append(pre);
}

const MARKER = /\[(\d{1,3})\]/g;

function markCitations(fragment, cite) {
  const walker = document.createTreeWalker(fragment, NodeFilter.SHOW_TEXT);
  const texts = [];
  while (walker.nextNode()) {
    if (!walker.currentNode.parentElement?.closest("code, pre, a, button")) texts.push(walker.currentNode);
  }
  for (const node of texts) {
    const parts = [];
    let end = 0;
    for (const match of node.data.matchAll(MARKER)) {
      const mark = cite(Number(match[1]));
      if (!mark) continue;
      // The blank before a marker belongs to the sentence, not to a line of its own.
      parts.push(node.data.slice(end, match.index).replace(/ $/, " "), mark);
      end = match.index + match[0].length;
    }
    if (parts.length) node.replaceWith(...parts, node.data.slice(end));
  }
}
