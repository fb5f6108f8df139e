// Keys that work everywhere, and the list of them.

import { h } from "./dom.js";
import { showDialog } from "./dialog.js";
import { t } from "./i18n.js";
import { session } from "./session.js";
import { closeViewer } from "./viewer.js";

const GO = { 1: "chat", 2: "documents", 3: "search", 4: "connect" };

/** Act on a key. Letters alone count only where nobody is typing. */
export function handleShortcut(event, { newChat, focus, closeMenu }) {
  if (event.defaultPrevented || event.isComposing || document.querySelector("dialog[open]")) return;
  const types = event.target.closest?.("input, textarea, select, [contenteditable]");
  const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
  if (event.key === "Escape") {
    if (closeMenu() || closeViewer()) event.preventDefault();
    else if (session.isRunning) session.stop();
  } else if (event.altKey && !event.ctrlKey && !event.metaKey && GO[event.key]) {
    event.preventDefault();
    location.hash = `#/${GO[event.key]}`;
  } else if (event.altKey && event.code === "KeyN") {
    event.preventDefault();
    newChat();
  } else if (plain && !types && event.key === "/") {
    event.preventDefault();
    focus();
  } else if (plain && !types && event.key === "?") {
    event.preventDefault();
    showShortcuts();
  }
}

export function showShortcuts() {
  const rows = [
    [["/"], t("keys.focus")],
    [["Enter"], t("keys.send")],
    [["Shift", "Enter"], t("keys.line")],
    [["Esc"], t("keys.escape")],
    [["Alt", "N"], t("keys.new")],
    [["Alt", "1"], t("nav.chat")],
    [["Alt", "2"], t("nav.documents")],
    [["Alt", "3"], t("nav.search")],
    [["Alt", "4"], t("nav.connect")],
    [["?"], t("keys.list")],
  ];
  const table = h("dl", { class: "keys-list" }, rows.map(([keys, meaning]) => h("div", null, h("dt", null, keys.map((key) => h("kbd", null, key))), h("dd", null, meaning))));
  return showDialog({ title: t("shortcuts"), sign: "keyboard", content: table, actions: [{ label: t("close"), value: "", first: true }] });
}
