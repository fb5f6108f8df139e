// The passage that a link in an answer names, for whoever holds the link.

import { get } from "./api.js";
import { fill, h, icon } from "./dom.js";
import { chooseLanguage, t } from "./i18n.js";
import { passageText } from "./passage.js";

chooseLanguage();
const root = document.getElementById("linked");
const brand = h("p", { class: "linked-brand" }, icon("logo", 20), "Quarry", h("span", { class: "hint" }, t("viewer.link")));

try {
  const found = await get(`${location.pathname}/passage`);
  const { path, collection } = found.document;
  const text = passageText(found, new Set(found.marked), null);
  document.title = `${path.split("/").pop()} · Quarry`;
  fill(
    root,
    brand,
    h("h1", null, path.split("/").pop()),
    h("p", { class: "viewer-facts" }, h("span", null, path), h("span", null, t("viewer.collection", { name: collection }))),
    h("div", { class: "linked-text" }, text.element),
  );
  text.scrollToMark();
} catch (error) {
  const known = { not_found: "viewer.gone", link_expired: "viewer.expired", bad_link: "viewer.badLink" };
  const message = known[error.code] ? t(known[error.code]) : error.message;
  fill(root, brand, h("div", { class: "empty", role: "alert" }, icon("clock", 28), h("p", null, message)));
}
