// A passage in its document: beside the conversation on wide screens, over it on phones.

import * as api from "./api.js";
import { announce, button, fill, h, icon } from "./dom.js";
import { t } from "./i18n.js";
import { passageText } from "./passage.js";

let panel = null;
let opener = null;

/** Open the passage of a source, or a document from its beginning ({ path }). */
export async function openPassage({ chunk_ids: chunks = [], path }, from = document.activeElement) {
  opener = from;
  panel ??= makePanel();
  document.body.classList.add("viewing");
  panel.aside.hidden = false;
  fill(panel.body, h("div", { class: "skeleton", "aria-hidden": "true" }, Array.from({ length: 9 }, () => h("i"))));
  fill(panel.title, path.split("/").pop());
  fill(panel.facts);
  panel.close.focus({ preventScroll: true });
  const words = new URLSearchParams(
    chunks.length ? { chunk: chunks[0], before: "6", after: String(chunks.length + 7) } : { path, after: "20" },
  );
  const url = `/v1/library/passage?${words}`;
  try {
    const found = await api.get(url);
    fill(panel.facts, facts(found.document));
    const text = passageText(found, new Set(chunks), (more) => api.get(`/v1/library/passage?${new URLSearchParams(more)}`));
    fill(panel.body, text.element);
    text.scrollToMark();
    announce(t("viewer.opened", { name: path }));
  } catch (error) {
    const gone = error.status === 404;
    fill(
      panel.body,
      h("div", { class: "empty" }, icon(gone ? "clock" : "warning", 28), h("p", null, gone ? t("viewer.gone") : error.message), gone && button(t("viewer.openDocument"), { onclick: () => openPassage({ path }, opener) })),
    );
  }
}

export function closeViewer() {
  if (!panel || panel.aside.hidden) return false;
  panel.aside.hidden = true;
  document.body.classList.remove("viewing");
  if (opener?.isConnected) opener.focus({ preventScroll: true });
  return true;
}

function facts({ path, collection, n_chunks: n }) {
  return [h("span", null, path), h("span", null, t("viewer.collection", { name: collection })), h("span", null, t("passages", { n }))];
}

function makePanel() {
  const title = h("h2", { id: "viewer-title" });
  const details = h("p", { class: "viewer-facts" });
  const body = h("div", { class: "viewer-body", tabindex: "0", role: "region", "aria-labelledby": "viewer-title" });
  const close = button(t("close"), { icon: "close", bare: true, onclick: closeViewer });
  const aside = h(
    "aside",
    { class: "viewer", "aria-labelledby": "viewer-title" },
    h("header", null, h("div", null, title, details), close),
    body,
  );
  document.querySelector(".stage").append(aside);
  return { aside, title, body, close, facts: details };
}

/** Forget the panel: the page is drawn anew, in another language perhaps. */
export function resetViewer() {
  panel?.aside.remove();
  panel = null;
  document.body.classList.remove("viewing");
}
