// Files on their way in: uploaded one after the other, then attached to their collection.

import * as api from "./api.js";
import { announce } from "./dom.js";
import { formatBytes, t } from "./i18n.js";
import { library } from "./library.js";

/** Event `change`: an upload began, went on, or ended. Finished ones leave; failed ones stay until dismissed. */
class Uploads extends EventTarget {
  list = [];
  #isRunning = false;

  add(files, store) {
    const largest = library.state.max_upload_bytes;
    for (const file of files) {
      const upload = { file, store, name: file.name, share: 0, error: null, abort: new AbortController() };
      if (file.size > largest) {
        upload.error = t("upload.tooLarge", { size: formatBytes(file.size), limit: formatBytes(largest) });
      } else if (file.size === 0) {
        upload.error = t("upload.empty");
      }
      this.list.push(upload);
    }
    this.#changed();
    this.#run();
  }

  retry(upload) {
    upload.error = null;
    upload.share = 0;
    upload.abort = new AbortController();
    this.#changed();
    this.#run();
  }

  dismiss(upload) {
    upload.abort.abort();
    this.list = this.list.filter((one) => one !== upload);
    this.#changed();
  }

  async #run() {
    if (this.#isRunning) return;
    this.#isRunning = true;
    let upload;
    while ((upload = this.list.find(({ error }) => error === null))) {
      await this.#send(upload);
      await library.refresh();
    }
    this.#isRunning = false;
  }

  async #send(upload) {
    const { file, store, abort } = upload;
    try {
      const onProgress = (share) => {
        upload.share = share;
        this.#changed();
      };
      const { id } = await api.upload(file, { onProgress, signal: abort.signal });
      await api.post(`/v1/vector_stores/${store}/files`, { file_id: id });
      this.list = this.list.filter((one) => one !== upload);
      announce(t("upload.done", { name: upload.name }));
    } catch (error) {
      if (error.name !== "AbortError") upload.error = error.message;
    }
    this.#changed();
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }
}

export const uploads = new Uploads();

/** Give the files of a drop or a choice, those inside folders too. */
export async function filesOf(transfer) {
  const entries = [...(transfer.items ?? [])].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.length) return [...transfer.files];
  return (await Promise.all(entries.map(filesUnder))).flat();
}

async function filesUnder(entry) {
  // Hidden files are not documents: .DS_Store and the like.
  if (entry.name.startsWith(".")) return [];
  if (entry.isFile) return [await new Promise((resolve, reject) => entry.file(resolve, reject))];
  const reader = entry.createReader();
  const found = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) break;
    found.push(...some);
  }
  return (await Promise.all(found.map(filesUnder))).flat();
}
