// The view that people ask in.

import { button, fill, h, icon } from "./dom.js";
import { composer } from "./composer.js";
import { currentLanguage, t } from "./i18n.js";
import { library } from "./library.js";
import { assistantMessage, userMessage } from "./message.js";
import { session } from "./session.js";

const NEAR_END = 80;

export function chatView(root) {
  const log = h("div", { class: "log", role: "log", "aria-label": t("chat.log"), "aria-live": "off", tabindex: "-1" });
  const write = composer();
  const toEnd = button(t("chat.toEnd"), { icon: "down", bare: true, class: "to-end", onclick: () => scrollDown(true) });
  toEnd.hidden = true;
  let views = [];
  let follows = true;

  function draw() {
    const { messages } = session.conversation;
    views = messages.map((message, index) => (message.role === "user" ? userMessage(message, index) : assistantMessage(message, index)));
    fill(log, messages.length ? h("div", { class: "messages" }, views.map(({ element }) => element)) : welcome(write));
    root.classList.toggle("is-empty", !messages.length);
    follows = true;
    scrollDown();
  }

  function progress({ detail: message }) {
    views.find((view) => view.message === message)?.update();
    requestAnimationFrame(() => follows && scrollDown());
  }

  function scrollDown(smooth = false) {
    const calm = matchMedia("(prefers-reduced-motion: reduce)").matches;
    log.scrollTo({ top: log.scrollHeight, behavior: smooth && !calm ? "smooth" : "instant" });
  }

  function scrolled() {
    follows = log.scrollHeight - log.scrollTop - log.clientHeight < NEAR_END;
    toEnd.hidden = follows;
  }

  function libraryChanged() {
    if (!session.conversation.messages.length) fill(log, welcome(write));
  }

  log.addEventListener("scroll", scrolled, { passive: true });
  session.addEventListener("change", draw);
  session.addEventListener("progress", progress);
  library.addEventListener("change", libraryChanged);
  fill(root, log, h("div", { class: "composer-frame" }, toEnd, write.element, h("p", { class: "hint fine-print" }, t("chat.finePrint"))));
  draw();
  if (matchMedia("(pointer: fine)").matches) write.focus();
  return {
    title: t("nav.chat"),
    focus: write.focus,
    leave() {
      session.removeEventListener("change", draw);
      session.removeEventListener("progress", progress);
      library.removeEventListener("change", libraryChanged);
      write.leave();
    },
  };
}

/** What stands there before the first question: what there is to ask, or how to begin. */
function welcome(write) {
  const { isLoaded, error, counts, documents, collections } = library.state;
  const head = h("div", { class: "welcome-head" }, icon("logo", 44), h("h1", null, t("welcome.title")));
  if (!isLoaded) return h("div", { class: "welcome" }, head, h("p", { class: "lead" }, " "));
  if (error) return h("div", { class: "welcome" }, head, h("p", { class: "lead problem" }, error.message), button(t("retry"), { icon: "retry", onclick: () => library.refresh() }));
  if (!counts.ready) {
    return h(
      "div",
      { class: "welcome" },
      head,
      h("p", { class: "lead" }, counts.waiting ? t("welcome.reading") : t("welcome.empty")),
      h("a", { class: "button primary", href: "#/documents" }, icon("upload", 17), h("span", null, t("welcome.add"))),
    );
  }
  const named = collections.filter((one) => one.n_documents).length;
  const summary = t("welcome.documents", { n: counts.ready }) + (named > 1 ? t("welcome.collections", { n: named }) : "");
  // Those in the reader's own script first.
  const isForeign = ({ title, path }) => /\p{Script=Han}/u.test(title || path) !== (currentLanguage() === "zh");
  const ready = documents.filter((one) => one.state === "indexed" && one.n_chunks > 0);
  const titles = ready.sort((a, b) => isForeign(a) - isForeign(b)).slice(0, 3);
  const ideas = titles.map((one) => {
    const text = t("welcome.idea", { title: one.title || one.path.split("/").pop() });
    return h("li", null, h("button", { type: "button", class: "idea", onclick: () => write.suggest(text) }, icon("quote", 16), h("span", null, text)));
  });
  return h("div", { class: "welcome" }, head, h("p", { class: "lead" }, summary), h("ul", { class: "ideas" }, ideas));
}
