// Short messages that go by themselves; errors stay until they are closed.

import { button, h, icon } from "./dom.js";
import { t } from "./i18n.js";

export function toast(text, { kind = "note" } = {}) {
  let tray = document.getElementById("toasts");
  if (!tray) {
    tray = h("div", { id: "toasts", class: "toasts" });
    document.body.append(tray);
  }
  const close = button(t("close"), { icon: "close", bare: true, onclick: () => note.remove() });
  const note = h(
    "div",
    { class: `toast ${kind}`, role: kind === "error" ? "alert" : "status" },
    icon(kind === "error" ? "warning" : "check", 18),
    h("p", null, text),
    close,
  );
  tray.append(note);
  if (kind !== "error") setTimeout(() => note.remove(), 4500);
}

/** Show an error, unless the reader stopped the work. */
export function toastError(error) {
  if (error?.name !== "AbortError") toast(error.message, { kind: "error" });
}
