// A glance at a source: what stands behind a marker, while the pointer or the focus rests on it.

import { h } from "./dom.js";
import { place } from "./session.js";

const WAIT_MS = 220;
let card = null;
let timer = 0;

export function peekAt(control, source) {
  clearTimeout(timer);
  timer = setTimeout(() => {
    hidePeek();
    if (!control.isConnected) return;
    const text = source.text ?? "";
    card = h(
      "div",
      { class: "peek", "aria-hidden": "true" },
      h("p", { class: "peek-place" }, place(source)),
      h("p", { class: "peek-text" }, text.length >= 280 ? `${text}…` : text),
    );
    document.body.append(card);
    const at = control.getBoundingClientRect();
    const { width, height } = card.getBoundingClientRect();
    const left = Math.max(12, Math.min(at.left + at.width / 2 - width / 2, innerWidth - width - 12));
    const top = at.top - height - 8 > 8 ? at.top - height - 8 : at.bottom + 8;
    // A stylesheet of its own for two numbers would be refused by the page's policy; the object model is not.
    card.style.left = `${left}px`;
    card.style.top = `${top}px`;
  }, WAIT_MS);
}

export function hidePeek() {
  clearTimeout(timer);
  card?.remove();
  card = null;
}

addEventListener("scroll", hidePeek, { capture: true, passive: true });
addEventListener("keydown", (event) => event.key === "Escape" && hidePeek());
