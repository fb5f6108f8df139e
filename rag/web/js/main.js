// The shell: navigation, conversations, settings, and the view that the address names.

import { onKeyNeeded } from "./api.js";
import { chatView } from "./chat.js";
import { connectView } from "./connect.js";
import { conversations } from "./conversations.js";
import { button, fill, h, icon } from "./dom.js";
import { confirmDialog } from "./dialog.js";
import { documentsView } from "./documents.js";
import { catchDrops } from "./drop.js";
import { LANGUAGES, chooseLanguage, currentLanguage, switchLanguage, t } from "./i18n.js";
import { askKey } from "./key.js";
import { library } from "./library.js";
import { searchView } from "./search.js";
import { session } from "./session.js";
import { getKey, getTheme, setKey, setTheme } from "./settings.js";
import { handleShortcut, showShortcuts } from "./shortcuts.js";
import { closeViewer, resetViewer } from "./viewer.js";

const VIEWS = { chat: chatView, documents: documentsView, search: searchView, connect: connectView };
const THEMES = ["auto", "light", "dark"];
const THEME_ICONS = { auto: "auto", light: "sun", dark: "moon" };

let view = null;
let parts = {};

function viewName() {
  const name = location.hash.replace(/^#\/?/, "").split("/")[0];
  return name in VIEWS ? name : "chat";
}

/** Draw everything anew, as after a change of language. */
function drawShell() {
  view?.leave?.();
  resetViewer();
  document.title = "Quarry";
  const list = h("ul", { class: "conversation-list" });
  const sidebar = h(
    "nav",
    { class: "sidebar", id: "sidebar", "aria-label": t("nav.label") },
    h("div", { class: "brand" }, h("a", { href: "#/chat", class: "brand-name" }, icon("logo", 24), "Quarry"), button(t("close"), { icon: "close", bare: true, class: "phone-only", onclick: () => openMenu(false) })),
    button(t("chat.new"), { icon: "plus", class: "new-chat", onclick: newChat }),
    h("ul", { class: "nav-list" }, Object.keys(VIEWS).map(navItem)),
    h("section", { class: "conversations", "aria-label": t("conversations") }, h("h2", null, t("conversations")), list),
    h("div", { class: "sidebar-foot" }, languageSwitch(), themeSwitch(), button(t("shortcuts"), { icon: "keyboard", bare: true, class: "desk-only", onclick: showShortcuts }), getKey() && button(t("key.change"), { icon: "key", bare: true, onclick: changeKey })),
  );
  const root = h("main", { class: "view", id: "main", tabindex: "-1" });
  const heading = h("span", { class: "topbar-title" });
  const menu = button(t("nav.menu"), { icon: "menu", bare: true, "aria-controls": "sidebar", "aria-expanded": "false", onclick: () => openMenu(true) });
  const topbar = h("header", { class: "topbar" }, menu, heading, button(t("chat.new"), { icon: "plus", bare: true, onclick: newChat }));
  const shade = h("div", { class: "shade", onclick: () => openMenu(false) });
  fill(
    document.getElementById("app"),
    h("a", { class: "skip", href: "#main", onclick: skip }, t("nav.skip")),
    sidebar,
    shade,
    h("div", { class: "stage" }, topbar, root),
  );
  parts = { sidebar, root, heading, list, menu };
  drawConversations();
  drawView();
}

function skip(event) {
  event.preventDefault();
  parts.root.focus();
}

function navItem(name) {
  return h("li", null, h("a", { href: `#/${name}`, class: "nav-item", "data-view": name }, icon(name, 19), h("span", null, t(`nav.${name}`)), name === "documents" && h("span", { class: "badge", hidden: true })));
}

function drawView() {
  const name = viewName();
  view?.leave?.();
  closeViewer();
  for (const item of parts.sidebar.querySelectorAll("[data-view]")) {
    if (item.dataset.view === name) item.setAttribute("aria-current", "page");
    else item.removeAttribute("aria-current");
  }
  parts.root.className = `view ${name}-view`;
  parts.root.replaceChildren();
  view = VIEWS[name](parts.root);
  parts.heading.textContent = view.title;
  document.title = name === "chat" ? "Quarry" : `${view.title} · Quarry`;
  openMenu(false);
  drawConversations();
}

function drawConversations() {
  const items = conversations.list.map((one) =>
    h(
      "li",
      null,
      h(
        "button",
        { type: "button", class: "conversation", "aria-current": viewName() === "chat" && one === session.conversation && "true", onclick: () => { session.open(one); showChat(); } },
        one.title || t("conversation.untitled"),
      ),
      button(t("conversation.delete"), { icon: "trash", bare: true, onclick: () => deleteConversation(one) }),
    ),
  );
  fill(parts.list, items.length ? items : h("li", { class: "hint" }, t("conversations.none")));
}

async function deleteConversation(one) {
  if (!(await confirmDialog(t("conversation.delete.title"), t("conversation.delete.text", { title: one.title }), t("delete")))) return;
  conversations.delete(one.id);
  if (session.conversation === one) session.begin();
}

function newChat() {
  session.begin();
  showChat();
}

function showChat() {
  if (viewName() === "chat") drawView();
  else location.hash = "#/chat";
}

function openMenu(open) {
  const { sidebar, menu } = parts;
  const wasOpen = document.body.classList.contains("menu-open");
  document.body.classList.toggle("menu-open", open);
  menu.setAttribute("aria-expanded", String(open));
  if (open) sidebar.querySelector("button").focus();
  else if (wasOpen) menu.focus({ preventScroll: true });
}

function languageSwitch() {
  const select = h("select", { "aria-label": t("language"), onchange: () => { switchLanguage(select.value); drawShell(); parts.sidebar.querySelector(".language select").focus(); } }, Object.entries(LANGUAGES).map(([code, name]) => h("option", { value: code, lang: code === "zh" ? "zh-CN" : "en" }, name)));
  select.value = currentLanguage();
  return h("label", { class: "small-select language" }, icon("globe", 17), select);
}

function themeSwitch() {
  const control = h("button", { type: "button", class: "button bare", onclick: next });
  function draw() {
    const label = t("theme", { theme: t(`theme.${getTheme()}`) });
    fill(control, icon(THEME_ICONS[getTheme()], 18));
    control.setAttribute("aria-label", label);
    control.title = label;
  }
  function next() {
    setTheme(THEMES[(THEMES.indexOf(getTheme()) + 1) % THEMES.length]);
    draw();
  }
  draw();
  return control;
}

async function changeKey() {
  if (await askKey(false)) {
    await library.refresh();
    return;
  }
  setKey(null);
}

function libraryChanged() {
  const badge = parts.sidebar.querySelector(".badge");
  const { waiting, failed } = library.state.counts;
  badge.hidden = !waiting && !failed;
  badge.textContent = String(waiting || failed);
  badge.classList.toggle("bad", !waiting && failed > 0);
  badge.title = waiting ? t("documents.waiting", { n: waiting }) : t("documents.failed", { n: failed });
}

chooseLanguage();
onKeyNeeded(async (isWrong) => {
  const given = await askKey(isWrong);
  if (given) {
    conversations.load();
    drawShell();
  }
  return given;
});
conversations.load();
drawShell();
addEventListener("hashchange", drawView);
conversations.addEventListener("change", drawConversations);
session.addEventListener("change", drawConversations);
library.addEventListener("change", libraryChanged);
addEventListener("keydown", (event) => handleShortcut(event, { newChat, focus: () => view.focus?.(), closeMenu: () => document.body.classList.contains("menu-open") && (openMenu(false), true) }));
catchDrops();
library.refresh();
