// One message of the conversation: a question that can be edited, an answer that grows.

import { announce, button, fill, h, icon } from "./dom.js";
import { copyText } from "./copy.js";
import { t } from "./i18n.js";
import { GrowingMarkdown } from "./markdown.js";
import { hidePeek, peekAt } from "./peek.js";
import { asText, citedSources, session } from "./session.js";
import { openPassage } from "./viewer.js";

export function userMessage(message, index) {
  const article = h("article", { class: "message user", "aria-label": t("message.yours") });
  const show = () => {
    const text = h("div", { class: "bubble" }, message.content);
    const copy = button(t("copy"), { icon: "copy", bare: true, onclick: () => copyText(message.content, copy) });
    const edit = button(t("message.edit"), { icon: "edit", bare: true, onclick: change });
    fill(article, text, h("div", { class: "message-actions" }, copy, edit));
  };
  const change = () => {
    const area = h("textarea", { class: "field", rows: "3", "aria-label": t("message.edit"), value: message.content });
    const send = () => area.value.trim() && session.edit(index, area.value.trim());
    area.addEventListener("keydown", (event) => {
      if (event.key === "Escape") show();
      else if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
        event.preventDefault();
        send();
      }
    });
    const cancel = button(t("cancel"), { onclick: show });
    const ask = button(t("message.askAgain"), { class: "primary", onclick: send });
    fill(article, h("div", { class: "editing" }, area, h("div", { class: "dialog-actions" }, cancel, ask)));
    area.focus();
    area.setSelectionRange(area.value.length, area.value.length);
  };
  show();
  return { element: article, update() {} };
}

export function assistantMessage(message, index) {
  const body = h("div", { class: "prose" });
  const progress = h("div", { class: "progress-line" });
  const thought = h("details", { class: "thought" }, h("summary", null, t("message.thought")), h("p"));
  const foot = h("div", { class: "message-foot" });
  const element = h(
    "article",
    { class: "message assistant", "aria-label": t("message.answer"), "aria-busy": "true" },
    progress,
    thought,
    body,
    foot,
  );
  const text = new GrowingMarkdown(body, { cite: (number) => citation(message, number) });
  let shownState = null;
  let frame = 0;

  function draw() {
    frame = 0;
    const isRunning = message.state === "running";
    thought.hidden = !message.thought;
    if (message.thought) thought.lastChild.textContent = message.thought;
    progress.hidden = !isRunning || Boolean(message.content);
    if (!progress.hidden) fill(progress, h("span", { class: "dots", "aria-hidden": "true" }, h("i"), h("i"), h("i")), h("span", null, working(message)));
    text.update(message.content);
    element.classList.toggle("writing", isRunning && Boolean(message.content));
    if (!isRunning && shownState !== message.state) {
      // The last chunk brought the sources: markers that were text become buttons.
      text.blocks.splice(0).forEach(({ nodes }) => nodes.forEach((node) => node.remove()));
      text.update(message.content);
      element.setAttribute("aria-busy", "false");
      fill(foot, notes(message, index), sourceList(message), actions(message, index));
      if (shownState === "running") announce(message.state === "failed" ? message.error.message : t("message.complete"));
    }
    shownState = message.state;
  }

  draw();
  return {
    element,
    message,
    update() {
      if (!frame) frame = requestAnimationFrame(draw);
    },
  };
}

function working({ found = [] }) {
  if (!found.length) return t("message.searching");
  const names = [...new Set(found.map(({ path }) => path.split("/").pop()))];
  return t("message.reading", { n: found.length, names: names.slice(0, 3).join(t("list.comma")) + (names.length > 3 ? "…" : "") });
}

function citation(message, number) {
  const source = message.sources.find((one) => one.number === number);
  if (!source) return message.state === "running" && number <= (message.found?.length ?? 0) ? h("span", { class: "cite pending" }, number) : null;
  const mark = h("button", { type: "button", class: "cite", "aria-label": t("source.open", { number, name: source.path }) }, String(number));
  return opening(mark, source);
}

function opening(control, source) {
  control.addEventListener("click", () => {
    hidePeek();
    openPassage(source, control);
  });
  for (const kind of ["mouseenter", "focus"]) control.addEventListener(kind, () => peekAt(control, source));
  for (const kind of ["mouseleave", "blur"]) control.addEventListener(kind, hidePeek);
  return control;
}

function sourceList(message) {
  const cited = citedSources(message);
  if (!cited.length) return null;
  const chips = cited.map((source) => {
    const where = [source.heading_path?.at(-1), source.page ? t("page", { page: source.page }) : null].filter(Boolean).join(" · ");
    const chip = h(
      "button",
      { type: "button", class: "source-chip", "aria-label": t("source.open", { number: source.number, name: source.path }) },
      h("span", { class: "cite" }, String(source.number)),
      h("span", { class: "source-name" }, source.path.split("/").pop()),
      where && h("span", { class: "source-place" }, where),
    );
    return h("li", null, opening(chip, source));
  });
  return h("section", { class: "sources", "aria-label": t("sources") }, h("ul", null, chips));
}

function notes(message, index) {
  if (message.state === "failed") {
    const { status, code, retryAfter } = message.error;
    const hint = status === 429 ? t("error.busy", { n: retryAfter ?? 5 }) : code === "unreachable" ? t("error.unreachable.hint") : null;
    return h(
      "div",
      { class: "failure", role: "alert" },
      icon("warning", 20),
      h("div", null, h("p", null, message.error.message), hint && h("p", { class: "hint" }, hint)),
      button(t("retry"), { icon: "retry", onclick: () => session.retry(index) }),
    );
  }
  if (message.state === "stopped") return h("p", { class: "hint stopped" }, t("message.stopped"));
  if (message.isCut) return h("p", { class: "hint stopped" }, t("message.cut"));
  return null;
}

function actions(message, index) {
  const copy = button(t("copy"), { icon: "copy", bare: true, onclick: () => copyText(asText(message, t("sources")), copy) });
  const again = button(t("retry"), { icon: "retry", bare: true, onclick: () => session.retry(index) });
  return h("div", { class: "message-actions" }, message.content && copy, message.state !== "failed" && again);
}
