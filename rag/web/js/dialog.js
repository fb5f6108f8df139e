// Dialogs: the browser's own element, which keeps the focus inside and gives it back.

import { button, h, icon } from "./dom.js";
import { t } from "./i18n.js";

/** Show a dialog and wait for its end; gives the value of the button that closed it, "" for Escape. */
export function showDialog({ title, sign = null, content = [], actions }) {
  return new Promise((resolve) => {
    const heading = `dialog-${Math.random().toString(36).slice(2)}`;
    const dialog = h(
      "dialog",
      { class: "dialog", "aria-labelledby": heading },
      h(
        "form",
        { method: "dialog" },
        h("h2", { id: heading }, sign && icon(sign, 22), title),
        content,
        h(
          "div",
          { class: "dialog-actions" },
          actions.map(({ label, value, kind = "", first = false }) =>
            button(label, { class: kind, type: "submit", value, autofocus: first }),
          ),
        ),
      ),
    );
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue);
      dialog.remove();
    });
    dialog.addEventListener("click", (event) => event.target === dialog && dialog.close(""));
    document.body.append(dialog);
    dialog.showModal();
  });
}

/** Ask whether something that cannot be undone is meant. */
export async function confirmDialog(title, text, action) {
  const actions = [
    { label: t("cancel"), value: "", first: true },
    { label: action, value: "yes", kind: "danger" },
  ];
  return (await showDialog({ title, sign: "warning", content: h("p", null, text), actions })) === "yes";
}

/** Ask for a line of text; gives null when it was not given. */
export async function askText(title, { label, hint = "", action, type = "text", sign = null, problem = "" }) {
  const input = h("input", { type, id: "dialog-input", class: "field", autocomplete: "off", spellcheck: "false", required: true });
  const content = [
    problem && h("p", { class: "problem", role: "alert" }, problem),
    h("label", { for: "dialog-input" }, label),
    input,
    hint && h("p", { class: "hint" }, hint),
  ];
  const actions = [
    { label: action, value: "yes", kind: "primary" },
  ];
  const answer = showDialog({ title, sign, content, actions });
  input.focus();
  return (await answer) === "yes" && input.value.trim() ? input.value.trim() : null;
}
