// Where questions are written.

import { button, fill, h, icon } from "./dom.js";
import { library } from "./library.js";
import { t } from "./i18n.js";
import { ALL, session } from "./session.js";

export function composer() {
  const area = h("textarea", {
    id: "question",
    rows: "1",
    placeholder: t("composer.placeholder"),
    "aria-label": t("composer.label"),
    enterkeyhint: "send",
    autocomplete: "off",
  });
  const scope = h("select", { class: "scope", "aria-label": t("composer.scope"), onchange: () => session.setScope(scope.value) });
  const go = h("button", { type: "submit", class: "go" });
  const form = h(
    "form",
    { class: "composer", onsubmit: submit },
    area,
    h("div", { class: "composer-bar" }, h("label", { class: "scope-frame" }, icon("folder", 16), scope, icon("down", 14)), h("span", { class: "hint keys" }, t("composer.keys")), go),
  );

  function submit(event) {
    event.preventDefault();
    if (session.isRunning && !area.value.trim()) {
      session.stop();
      return;
    }
    const question = area.value.trim();
    if (!question) return;
    area.value = "";
    fit();
    session.ask(question);
  }

  function fit() {
    area.style.height = "auto";
    area.style.height = `${Math.min(area.scrollHeight, 220)}px`;
    draw();
  }

  function draw() {
    const stops = session.isRunning && !area.value.trim();
    fill(go, icon(stops ? "stop" : "send", 20));
    go.setAttribute("aria-label", stops ? t("composer.stop") : t("composer.send"));
    go.title = stops ? t("composer.stop") : t("composer.send");
    go.classList.toggle("stops", stops);
    go.disabled = !stops && !area.value.trim();
  }

  function drawScopes() {
    const { collections, models } = library.state;
    const named = collections.filter((one) => one.n_chunks > 0);
    const wanted = session.conversation.scope;
    const options = [
      h("option", { value: ALL }, t("scope.all")),
      named.length > 1 && named.map((one) => h("option", { value: one.model }, one.name)),
      models.chat && h("option", { value: models.chat.name }, t("scope.none")),
    ];
    fill(scope, options);
    scope.value = wanted;
    if (scope.selectedIndex < 0) {
      // Its collection is gone, or not listed yet.
      scope.append(h("option", { value: wanted }, wanted));
      scope.value = wanted;
    }
  }

  area.addEventListener("input", fit);
  area.addEventListener("keydown", (event) => {
    // While a Chinese word is being composed, Enter takes the word.
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.keyCode !== 229) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  session.addEventListener("change", drawScopes);
  for (const kind of ["change", "end"]) session.addEventListener(kind, draw);
  library.addEventListener("change", drawScopes);
  drawScopes();
  draw();
  return {
    element: form,
    focus: () => area.focus({ preventScroll: true }),
    suggest(text) {
      area.value = text;
      fit();
      area.focus();
    },
    leave() {
      session.removeEventListener("change", drawScopes);
      for (const kind of ["change", "end"]) session.removeEventListener(kind, draw);
      library.removeEventListener("change", drawScopes);
    },
  };
}
