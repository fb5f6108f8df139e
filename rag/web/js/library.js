// What the page knows of the library: asked for when needed, again and again while something is being read.

import * as api from "./api.js";

const POLL_MS = 1200;
const MOST_AT_ONCE = 1000; // documents that the service lists in one answer
export const STEP = 200;

/** Event `change`: the state is another one. */
class Library extends EventTarget {
  state = { isLoaded: false, error: null, documents: [], total: 0, counts: { ready: 0, waiting: 0, failed: 0 }, collections: [], progress: null, models: {}, max_upload_bytes: Infinity };
  wanted = { collection: null, query: "", limit: STEP };
  #timer = 0;
  #current = 0;

  /** Ask for the state now; go on asking while documents wait or are read. */
  async refresh() {
    clearTimeout(this.#timer);
    this.#current += 1;
    const current = this.#current;
    const started = performance.now();
    try {
      const { data, ...rest } = await listDocuments(this.wanted);
      if (current !== this.#current) return;
      this.state = { ...this.state, ...rest, documents: data, isLoaded: true, error: null };
    } catch (error) {
      if (current !== this.#current) return;
      this.state = { ...this.state, isLoaded: true, error };
    }
    this.dispatchEvent(new Event("change"));
    const isBusy = this.state.progress || this.state.counts.waiting > 0;
    if (isBusy && !this.state.error && !document.hidden) this.#timer = setTimeout(() => this.refresh(), Math.max(POLL_MS, 5 * (performance.now() - started)));
  }

  /** List further documents after those that are here. */
  async grow() {
    const { documents, total } = this.state;
    // Else they are on their way.
    if (this.wanted.limit > documents.length || documents.length >= total) return;
    this.wanted = { ...this.wanted, limit: this.wanted.limit + STEP };
    const current = this.#current;
    try {
      const further = await listDocuments({ ...this.wanted, from: documents.length });
      if (current !== this.#current) return; // a refresh gives them, too
      this.state = { ...this.state, total: further.total, documents: [...documents, ...further.data] };
    } catch (error) {
      if (current === this.#current) this.state = { ...this.state, error };
    }
    this.dispatchEvent(new Event("change"));
  }

  want(changes) {
    this.wanted = { ...this.wanted, ...changes };
    return this.refresh();
  }
}

/** List documents number `from` to `limit` of a collection, or of all, whose names hold `query`. */
export async function listDocuments({ collection = null, query = "", from = 0, limit = Infinity }) {
  let listing = null;
  let offset = from;
  do {
    const words = new URLSearchParams({ query, offset: String(offset), limit: String(Math.min(limit - offset, MOST_AT_ONCE)) });
    if (collection !== null) words.set("collection", collection);
    const page = await api.get(`/v1/library/documents?${words}`);
    listing = { ...page, data: [...(listing?.data ?? []), ...page.data] };
    if (!page.data.length) break;
    offset += page.data.length;
  } while (offset < Math.min(limit, listing.total));
  return listing;
}

export const library = new Library();

document.addEventListener("visibilitychange", () => !document.hidden && library.state.isLoaded && library.refresh());
