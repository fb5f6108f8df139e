// What the page knows of the library: asked for when needed, again and again while something is being read.

import * as api from "./api.js";

const POLL_MS = 1200;

/** Event `change`: the state is another one. */
class Library extends EventTarget {
  state = { isLoaded: false, error: null, documents: [], total: 0, counts: { ready: 0, waiting: 0, failed: 0 }, collections: [], progress: null, models: {}, max_upload_bytes: Infinity };
  wanted = { collection: null, query: "", limit: 200 };
  #timer = 0;
  #current = 0;

  /** Ask for the state now; go on asking while documents wait or are read. */
  async refresh() {
    clearTimeout(this.#timer);
    this.#current += 1;
    const current = this.#current;
    const { collection, query, limit } = this.wanted;
    const words = new URLSearchParams({ query, limit: String(limit) });
    if (collection !== null) words.set("collection", collection);
    try {
      const [listing, { models }] = await Promise.all([api.get(`/v1/library/documents?${words}`), api.get("/v1/library")]);
      if (current !== this.#current) return;
      const { data, ...rest } = listing;
      this.state = { ...this.state, ...rest, documents: data, models, isLoaded: true, error: null };
    } catch (error) {
      if (current !== this.#current) return;
      this.state = { ...this.state, isLoaded: true, error };
    }
    this.dispatchEvent(new Event("change"));
    const isBusy = this.state.progress || this.state.counts.waiting > 0;
    if (isBusy && !this.state.error && !document.hidden) this.#timer = setTimeout(() => this.refresh(), POLL_MS);
  }

  want(changes) {
    this.wanted = { ...this.wanted, ...changes };
    return this.refresh();
  }
}

export const library = new Library();

document.addEventListener("visibilitychange", () => !document.hidden && library.state.isLoaded && library.refresh());
