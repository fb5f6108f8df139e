// Searching without writing an answer: the passages themselves.

import * as api from "./api.js";
import { announce, button, fill, h, icon } from "./dom.js";
import { collectionName } from "./documents.js";
import { currentLanguage, t } from "./i18n.js";
import { library } from "./library.js";
import { ALL } from "./session.js";
import { openPassage } from "./viewer.js";

const LIMIT = 20;
const EXCERPT = 420;

// What was looked for stays while other views are looked at.
const last = { query: "", scope: ALL, results: null, error: null };

export function searchView(root) {
  const input = h("input", { type: "search", id: "search-input", class: "field big", placeholder: t("search.placeholder"), "aria-label": t("search.placeholder"), value: last.query, autocomplete: "off", enterkeyhint: "search" });
  const scope = h("select", { class: "field", "aria-label": t("composer.scope"), onchange: () => { last.scope = scope.value; if (last.query) run(); } });
  const list = h("div", { class: "results" });
  let abort = null;

  async function run(event) {
    event?.preventDefault();
    last.query = input.value.trim();
    abort?.abort();
    if (!last.query) {
      last.results = null;
      draw();
      return;
    }
    abort = new AbortController();
    const { signal } = abort;
    list.setAttribute("aria-busy", "true");
    const waiting = setTimeout(() => fill(list, h("div", { class: "skeleton", "aria-hidden": "true" }, Array.from({ length: 6 }, () => h("i")))), 150);
    try {
      const body = { query: last.query, limit: LIMIT, model: last.scope };
      last.results = (await api.post("/v1/library/search", body, { signal })).results;
      last.error = null;
      announce(t("search.found", { n: last.results.length }));
    } catch (error) {
      if (error.name === "AbortError") return;
      last.error = error;
    } finally {
      clearTimeout(waiting);
    }
    list.removeAttribute("aria-busy");
    draw();
  }

  function draw() {
    const { query, results, error } = last;
    if (error) fill(list, h("div", { class: "empty problem", role: "alert" }, icon("warning", 28), h("p", null, error.message), button(t("retry"), { icon: "retry", onclick: run })));
    else if (results === null) fill(list, h("div", { class: "empty" }, icon("search", 34), h("p", null, t("search.hint"))));
    else if (!results.length) fill(list, h("div", { class: "empty" }, icon("search", 34), h("p", null, t("search.nothing", { query }))));
    else fill(list, h("p", { class: "hint result-count" }, t("search.found", { n: results.length })), h("ol", { class: "result-list" }, results.map((passage) => result(passage, wordsOf(query)))));
  }

  function drawScopes() {
    const named = library.state.collections.filter((one) => one.n_chunks > 0);
    fill(scope, h("option", { value: ALL }, t("scope.all")), named.map((one) => h("option", { value: one.model }, collectionName(one))));
    scope.value = last.scope;
    if (scope.selectedIndex < 0) scope.value = last.scope = ALL;
  }

  library.addEventListener("change", drawScopes);
  const form = h("form", { class: "search-form", role: "search", onsubmit: run }, input, scope, button(t("search.go"), { icon: "search", class: "primary", type: "submit" }));
  fill(root, h("div", { class: "page" }, h("header", { class: "page-head" }, h("h1", null, t("nav.search"))), form, list));
  drawScopes();
  draw();
  if (matchMedia("(pointer: fine)").matches) input.focus();
  return {
    title: t("nav.search"),
    focus: () => input.focus(),
    leave() {
      abort?.abort();
      library.removeEventListener("change", drawScopes);
    },
  };
}

function result(passage, words) {
  const { path, heading_path: headings, page, text, collection } = passage;
  const where = [headings.join(" › "), page ? t("page", { page }) : ""].filter(Boolean).join(" · ");
  const name = h("button", { type: "button", class: "row-name", onclick: () => openPassage(passage, name) }, path.split("/").pop());
  return h(
    "li",
    { class: "result" },
    h("div", { class: "result-head" }, name, h("span", { class: "row-facts" }, h("span", null, collection), where && h("span", null, where))),
    h("p", { class: "excerpt" }, marked(excerpt(text, words), words)),
  );
}

/** Cut a text around the first word that was looked for. */
function excerpt(text, words) {
  const plain = text.replace(/\s+/g, " ");
  if (plain.length <= EXCERPT) return plain;
  const places = words.map((word) => plain.toLowerCase().indexOf(word)).filter((place) => place >= 0);
  const start = Math.max(0, Math.min(...(places.length ? places : [0])) - 80);
  return `${start ? "…" : ""}${plain.slice(start, start + EXCERPT)}…`;
}

/** Give the words of a query that are worth marking, Chinese ones too. */
function wordsOf(query) {
  const pieces = "Segmenter" in Intl
    ? [...new Intl.Segmenter(currentLanguage(), { granularity: "word" }).segment(query)].filter(({ isWordLike }) => isWordLike).map(({ segment }) => segment)
    : query.split(/\s+/);
  const isHan = (word) => /\p{Script=Han}/u.test(word);
  return [...new Set(pieces.map((word) => word.toLowerCase()).filter((word) => isHan(word) ? word.length > 1 : word.length > 3))];
}

function marked(text, words) {
  if (!words.length) return text;
  const pattern = new RegExp(words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).sort((a, b) => b.length - a.length).join("|"), "giu");
  const parts = [];
  let end = 0;
  for (const match of text.matchAll(pattern)) {
    parts.push(text.slice(end, match.index), h("b", null, match[0]));
    end = match.index + match[0].length;
  }
  return [...parts, text.slice(end)];
}
