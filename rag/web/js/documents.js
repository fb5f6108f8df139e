// Documents and collections: what is there, what is being read, what could not be, and what to do about it.

import * as api from "./api.js";
import { askText, confirmDialog, showDialog } from "./dialog.js";
import { button, fill, h, icon } from "./dom.js";
import { addFiles, dropInto, dropTarget } from "./drop.js";
import { formatBytes, formatTime, t } from "./i18n.js";
import { STEP, library, listDocuments } from "./library.js";
import { toast, toastError } from "./toast.js";
import { uploads } from "./uploads.js";
import { openPassage } from "./viewer.js";

export function documentsView(root) {
  const input = h("input", { type: "file", multiple: true, class: "unseen", tabindex: "-1", "aria-hidden": "true", onchange: chosen });
  const filter = h("input", { type: "search", class: "field", placeholder: t("documents.filter"), "aria-label": t("documents.filter"), value: library.wanted.query, oninput: filtered });
  const tabs = h("div", { class: "tabs", role: "group", "aria-label": t("collections") });
  const progress = h("div", { class: "reading" });
  const pending = h("ul", { class: "uploads", "aria-label": t("uploads") });
  const list = h("div", { class: "document-list" });
  const rows = h("ul", { class: "rows", "aria-label": t("nav.documents") });
  const more = h("div", { class: "more" });
  const keepRow = rowsThatStay();
  // Who scrolls to the end of the list finds it longer; the button is there for the keyboard.
  const ending = new IntersectionObserver(([end]) => end.isIntersecting && library.grow(), { rootMargin: "600px" });
  const add = button(t("documents.add"), { icon: "upload", class: "primary", onclick: () => input.click() });
  let typing = 0;

  function filtered() {
    clearTimeout(typing);
    typing = setTimeout(() => library.want({ query: filter.value.trim(), limit: STEP }), 180);
  }

  function chosen() {
    addFiles({ files: [...input.files] });
    input.value = "";
  }

  function draw() {
    const { isLoaded, error, documents, total, collections } = library.state;
    const chosenOne = collections.find((one) => one.folder === library.wanted.collection) ?? null;
    dropInto(chosenOne);
    fill(tabs, drawTabs(collections), button(t("collections.new"), { icon: "plus", class: "quiet", onclick: newCollection }));
    drawProgress();
    if (!isLoaded) fill(list, h("div", { class: "skeleton", "aria-hidden": "true" }, Array.from({ length: 6 }, () => h("i"))));
    else if (error) fill(list, h("div", { class: "empty problem", role: "alert" }, icon("warning", 28), h("p", null, error.message), button(t("retry"), { icon: "retry", onclick: () => library.refresh() })));
    else if (!documents.length) fill(list, emptyState(chosenOne));
    else {
      // The open row of a menu or the focus must outlive a drawing: rows are found again by their path.
      const focused = document.activeElement?.closest?.("[data-path]");
      const place = focused && [focused.dataset.path, [...focused.querySelectorAll("button")].indexOf(document.activeElement)];
      fill(rows, documents.map(keepRow));
      fill(more, total > documents.length && button(t("documents.more", { n: total - documents.length }), { icon: "down", onclick: () => library.grow() }));
      fill(list, rows, more);
      // It tells only of changes: a list whose end is in sight still, after it grew, would not grow on.
      ending.unobserve(more);
      ending.observe(more);
      if (place) list.querySelector(`[data-path="${CSS.escape(place[0])}"]`)?.querySelectorAll("button")[place[1]]?.focus();
    }
  }

  function drawTabs(collections) {
    const all = { folder: null, name: t("collections.all"), n_documents: collections.reduce((sum, one) => sum + one.n_documents, 0) };
    return [all, ...collections].map((one) => {
      const isChosen = one.folder === library.wanted.collection;
      const tab = h("button", { type: "button", class: "tab", "aria-pressed": String(isChosen), onclick: () => library.want({ collection: one.folder, limit: STEP }) }, one.folder === null ? one.name : collectionName(one), h("span", { class: "count" }, one.n_documents.toLocaleString()));
      const canDelete = isChosen && one.deletable;
      return h("span", { class: "tab-frame" }, tab, canDelete && button(t("collections.delete"), { icon: "trash", bare: true, onclick: () => deleteCollection(one) }));
    });
  }

  function drawProgress() {
    const { progress: now, counts } = library.state;
    progress.hidden = !now && !counts.waiting;
    if (progress.hidden) return;
    const share = now?.bytes_total ? now.bytes_done / now.bytes_total : 0;
    const text = now ? t("documents.progress", { done: now.n_done, total: now.n_total, name: now.path.split("/").pop() }) : t("documents.waiting", { n: counts.waiting });
    fill(progress, h("span", null, text), h("progress", { max: "1", "aria-label": t("documents.reading"), ...(now ? { value: share.toFixed(3) } : {}) }));
  }

  function drawUploads() {
    pending.hidden = !uploads.list.length;
    fill(pending, uploads.list.map((upload) =>
      h(
        "li",
        { class: upload.error ? "failed" : "" },
        icon(upload.error ? "warning" : "upload", 18),
        h("div", null, h("span", { class: "row-name" }, upload.name), upload.error ? h("p", { class: "reason" }, upload.error) : h("progress", { max: "1", value: upload.share.toFixed(3), "aria-label": t("upload.progress", { name: upload.name }) })),
        upload.error && button(t("retry"), { icon: "retry", bare: true, onclick: () => uploads.retry(upload) }),
        button(upload.error ? t("dismiss") : t("cancel"), { icon: "close", bare: true, onclick: () => uploads.dismiss(upload) }),
      ),
    ));
  }

  function emptyState(collection) {
    if (library.wanted.query) return h("div", { class: "empty" }, icon("search", 28), h("p", null, t("documents.noneMatch", { query: library.wanted.query })));
    return h(
      "div",
      { class: "empty drop-zone" },
      icon("upload", 34),
      h("h2", null, t("documents.empty.title")),
      h("p", null, t("documents.empty.text", { name: (collection ?? dropTarget()) ? collectionName(collection ?? dropTarget()) : "" })),
      button(t("documents.choose"), { class: "primary", onclick: () => input.click() }),
      h("p", { class: "hint" }, t("documents.formats")),
    );
  }

  library.addEventListener("change", draw);
  uploads.addEventListener("change", drawUploads);
  fill(
    root,
    h("div", { class: "page" }, h("header", { class: "page-head" }, h("h1", null, t("nav.documents")), h("div", { class: "page-tools" }, filter, add, input)), tabs, progress, pending, list),
  );
  draw();
  drawUploads();
  library.refresh();
  return {
    title: t("nav.documents"),
    focus: () => filter.focus(),
    leave() {
      clearTimeout(typing);
      ending.disconnect();
      dropInto(null);
      library.removeEventListener("change", draw);
      uploads.removeEventListener("change", drawUploads);
    },
  };
}

export function collectionName({ folder, name }) {
  return folder === "default" && name === "default" ? t("collections.default") : name;
}

const STATES = {
  indexed: ["check", "ready"],
  waiting: ["clock", "busy"],
  failed: ["warning", "bad"],
  quarantined: ["warning", "bad"],
};

/** Draw rows, and give the same ones again while what they tell is the same: lists are long, and change little. */
function rowsThatStay() {
  const drawn = new Map();
  return (one) => {
    const told = JSON.stringify([one, modified(one)]);
    const known = drawn.get(one.path);
    if (known?.told === told) return known.element;
    const element = row(one);
    drawn.set(one.path, { told, element });
    return element;
  };
}

function row(one) {
  const isBad = one.state === "failed" || one.state === "quarantined";
  const name = one.path.split("/").pop();
  const [sign, kind] = STATES[one.state];
  const state = h("span", { class: `state ${kind}` }, icon(sign, 15), t(`state.${one.state}`));
  const facts = [
    one.path !== name && one.path.slice(0, -name.length - 1),
    one.n_chunks > 0 && t("passages", { n: one.n_chunks }),
    one.n_tokens > 0 && h("span", { class: "minor" }, t("tokens", { n: one.n_tokens })),
    one.bytes > 0 && formatBytes(one.bytes),
    one.version > 1 && t("version", { version: one.version }),
  ].filter(Boolean);
  const open = one.n_chunks > 0;
  return h(
    "li",
    { class: `row ${isBad ? "failed" : ""}`, "data-path": one.path },
    h("span", { class: "kind", "aria-hidden": "true" }, extension(name)),
    h(
      "div",
      { class: "row-text" },
      open ? h("button", { type: "button", class: "row-name", onclick: (event) => openPassage({ path: one.path }, event.currentTarget) }, name) : h("span", { class: "row-name" }, name),
      h("p", { class: "row-facts" }, facts.map((fact) => (fact instanceof Element ? fact : h("span", null, fact)))),
      isBad && h("p", { class: "reason" }, one.reason ?? t("state.failed")),
      isBad && one.n_chunks > 0 && h("p", { class: "hint" }, t("documents.oldVersion")),
    ),
    state,
    h("time", { class: "row-time", ...(one.modified_at ? { datetime: new Date(one.modified_at * 1000).toISOString() } : {}) }, modified(one)),
    h(
      "div",
      { class: "row-actions" },
      isBad && button(t("retry"), { icon: "retry", bare: true, onclick: () => retry(one) }),
      one.state !== "waiting" && button(t("download"), { icon: "download", bare: true, onclick: () => download(one) }),
      button(t("documents.delete", { name }), { icon: "trash", bare: true, onclick: () => (one.uploaded ? deleteDocument(one) : explainFolder(one)) }),
    ),
  );
}

function modified(one) {
  return one.modified_at ? formatTime(one.modified_at) : "";
}

function extension(name) {
  const dot = name.lastIndexOf(".");
  return dot > 0 ? name.slice(dot + 1, dot + 5).toUpperCase() : "—";
}

async function retry(one) {
  try {
    const { paths } = await api.post("/v1/library/retry", { path: one.path });
    const response = await api.send("POST", "/v1/library/reconcile", { body: {} });
    library.refresh();
    for await (const event of api.jsonLines(response)) if (event.error) throw new Error(event.error.message);
    await library.refresh();
    const again = library.state.documents.find(({ path }) => path === one.path);
    if (paths.length && again?.state === "indexed") toast(t("documents.readNow", { name: one.path }));
    else toast(t("documents.stillFailed", { name: one.path, reason: again?.reason ?? "" }), { kind: "error" });
  } catch (error) {
    toastError(error);
  }
}

async function download(one) {
  try {
    const blob = await (await api.send("GET", `/v1/files/${one.file_id}/content`)).blob();
    const url = URL.createObjectURL(blob);
    const link = h("a", { href: url, download: one.path.split("/").pop() });
    link.click();
    setTimeout(() => URL.revokeObjectURL(url), 10_000);
  } catch (error) {
    toastError(error);
  }
}

async function deleteDocument(one) {
  const name = one.path.split("/").pop();
  if (!(await confirmDialog(t("documents.delete.title", { name }), t("documents.delete.text"), t("delete")))) return;
  try {
    await api.remove(`/v1/files/${one.file_id}`);
    toast(t("documents.deleted", { name }));
  } catch (error) {
    toastError(error);
  }
  await library.refresh();
  document.querySelector(".documents-view [type=search]")?.focus();
}

/** What lies in the folder by hand is the owner's, and is deleted there. */
function explainFolder({ path }) {
  const content = [h("p", null, t("documents.inFolder")), h("p", { class: "address" }, path)];
  return showDialog({ title: t("documents.inFolder.title"), sign: "folder", content, actions: [{ label: t("close"), value: "", first: true }] });
}

async function newCollection() {
  const name = await askText(t("collections.new"), { sign: "folder", label: t("collections.name"), hint: t("collections.hint"), action: t("create") });
  if (name === null) return;
  try {
    await api.post("/v1/vector_stores", { name });
    await library.refresh();
    const made = library.state.collections.find((one) => one.name === name);
    await library.want({ collection: made?.folder ?? null });
  } catch (error) {
    toastError(error);
  }
}

async function deleteCollection(one) {
  const text = t("collections.delete.text", { n: one.n_documents });
  if (!(await confirmDialog(t("collections.delete.title", { name: one.name }), text, t("delete")))) return;
  try {
    // The documents go with their uploads: a copy that nobody sees would stay otherwise.
    const { data } = await listDocuments({ collection: one.folder });
    for (const { file_id: id } of data) await api.remove(`/v1/files/${id}`);
    await api.remove(`/v1/vector_stores/${one.id}`);
    toast(t("collections.deleted", { name: one.name }));
  } catch (error) {
    toastError(error);
  }
  await library.want({ collection: null });
}
