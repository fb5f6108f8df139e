// Files may be dropped anywhere on the page.

import { h, icon } from "./dom.js";
import { t } from "./i18n.js";
import { library } from "./library.js";
import { toastError } from "./toast.js";
import { filesOf, uploads } from "./uploads.js";

let target = null;

/** Say which collection (an entry of the library's state) dropped files go to; null: the first one. */
export function dropInto(collection) {
  target = collection;
}

export function dropTarget() {
  return target ?? library.state.collections[0] ?? null;
}

export function catchDrops() {
  let depth = 0;
  let veil = null;
  const hasFiles = (event) => [...(event.dataTransfer?.types ?? [])].includes("Files");
  const clear = () => {
    depth = 0;
    veil?.remove();
    veil = null;
  };
  addEventListener("dragenter", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    depth += 1;
    if (veil) return;
    veil = h("div", { class: "drop-veil", "aria-hidden": "true" }, h("div", null, icon("upload", 40), h("p", null, t("drop.here", { name: dropTarget()?.name ?? "" }))));
    document.body.append(veil);
  });
  addEventListener("dragover", (event) => hasFiles(event) && event.preventDefault());
  addEventListener("dragleave", (event) => {
    if (!hasFiles(event)) return;
    depth -= 1;
    if (depth <= 0) clear();
  });
  addEventListener("drop", async (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    clear();
    await addFiles(event.dataTransfer);
  });
}

/** Put the files of a drop or a choice into the library, and show how they get on. */
export async function addFiles(transfer) {
  try {
    const files = await filesOf(transfer);
    if (!library.state.isLoaded) await library.refresh();
    const store = dropTarget();
    if (!files.length || !store) return;
    uploads.add(files, store.id);
    location.hash = "#/documents";
  } catch (error) {
    toastError(error);
  }
}
