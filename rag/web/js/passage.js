// The text of a document around a passage, which is marked; more of it on demand, before and after.

import { button, fill, h } from "./dom.js";
import { t } from "./i18n.js";
import { renderMarkdown } from "./markdown.js";

const MORE = 20;

/** Show chunks; `load({ chunk, before, after })` fetches more of them, null: this is all there is to see. */
export function passageText(found, marked, load) {
  const n = found.document.n_chunks;
  const chunks = [...found.chunks];
  const list = h("div", { class: "passage-text" });
  const earlier = h("div", { class: "more" });
  const later = h("div", { class: "more" });
  const element = h("div", null, earlier, list, later);

  function draw() {
    let heading = "";
    let page = null;
    const parts = [];
    for (const chunk of chunks) {
      const path = chunk.heading_path.join(" › ");
      if (chunk.page !== null && chunk.page !== page) parts.push(h("p", { class: "page-mark" }, t("page", { page: chunk.page })));
      if (path && path !== heading) parts.push(h("h3", { class: "passage-heading" }, path));
      heading = path;
      page = chunk.page;
      const isMarked = marked.has(chunk.id);
      if (isMarked && chunk.place) parts.push(h("p", { class: "page-mark" }, t(`place.${chunk.place.unit}`, chunk.place)));
      parts.push(h(isMarked ? "mark" : "div", { class: "chunk", ...(isMarked ? { "data-marked": "true" } : {}) }, paragraphs(chunk.text)));
    }
    fill(list, parts);
    const before = chunks[0].ordinal;
    const after = n - 1 - chunks.at(-1).ordinal;
    fill(earlier, load && before > 0 && button(t("viewer.earlier", { n: before }), { icon: "up", onclick: () => extend("before") }));
    fill(later, load && after > 0 && button(t("viewer.later", { n: after }), { icon: "down", onclick: () => extend("after") }));
  }

  async function extend(side) {
    const edge = side === "before" ? chunks[0] : chunks.at(-1);
    const more = await load({ chunk: edge.id, before: side === "before" ? MORE : 0, after: side === "after" ? MORE : 0 });
    const known = new Set(chunks.map(({ id }) => id));
    const fresh = more.chunks.filter(({ id }) => !known.has(id));
    const scroller = element.parentElement;
    const height = scroller.scrollHeight;
    if (side === "before") chunks.unshift(...fresh);
    else chunks.push(...fresh);
    draw();
    if (side === "before") scroller.scrollTop += scroller.scrollHeight - height;
  }

  draw();
  return {
    element,
    scrollToMark() {
      const mark = list.querySelector("[data-marked]");
      if (mark) mark.scrollIntoView({ block: "start" });
      else element.parentElement.scrollTop = 0;
    },
  };
}

/** Show stored text as it is; tables, which are stored as Markdown, as tables. */
function paragraphs(text) {
  return text.split(/\n{2,}/).map((part) => {
    const isTable = /^\s*\|.*\|\s*\n\s*\|[\s:|-]+\|/.test(part);
    return isTable ? renderMarkdown(part) : h("p", null, part);
  });
}
