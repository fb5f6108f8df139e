// Copying, with a sign that it worked.

import { announce, fill, h, icon } from "./dom.js";
import { t } from "./i18n.js";

/** Copy a text; the button shows a tick for a moment. */
export async function copyText(text, control) {
  const worked = await write(text);
  announce(worked ? t("copied") : t("copy.failed"));
  if (!worked || !control) return;
  const before = [...control.childNodes];
  const hasLabel = control.querySelector("span") !== null;
  fill(control, icon("check", 18), hasLabel ? h("span", null, t("copied")) : null);
  control.classList.add("done");
  setTimeout(() => {
    fill(control, before);
    control.classList.remove("done");
  }, 1600);
}

async function write(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    // Over plain HTTP, on another machine, there is no clipboard for pages: the old way works there.
  }
  const area = h("textarea", { class: "unseen", readonly: true, value: text });
  document.body.append(area);
  area.select();
  const worked = document.execCommand("copy");
  area.remove();
  return worked;
}
