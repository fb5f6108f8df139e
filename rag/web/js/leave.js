// Links out of the page. Documents can hold links that tell another server what was asked: the reader sees where one leads.

import { h } from "./dom.js";
import { showDialog } from "./dialog.js";
import { copyText } from "./copy.js";
import { t } from "./i18n.js";

/** Show where a link leads, and go there only when the reader says so. */
export async function openLink(href) {
  const content = [h("p", null, t("leave.text")), h("p", { class: "address" }, href)];
  const actions = [
    { label: t("leave.stay"), value: "", first: true },
    { label: t("leave.copy"), value: "copy" },
    { label: t("leave.go"), value: "go", kind: "primary" },
  ];
  const answer = await showDialog({ title: t("leave.title"), sign: "link", content, actions });
  if (answer === "copy") await copyText(href);
  if (answer === "go") window.open(href, "_blank", "noopener,noreferrer");
}
