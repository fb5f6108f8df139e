// The conversations of this browser.

import { readConversations, writeConversations } from "./settings.js";

const MOST = 60;
const EXCERPT = 280;

class Conversations extends EventTarget {
  list = [];

  load() {
    try {
      const stored = JSON.parse(readConversations() ?? "[]");
      this.list = Array.isArray(stored) ? stored.filter((one) => Array.isArray(one?.messages)) : [];
    } catch {
      this.list = []; // Written by something else: nothing to show.
    }
    for (const { messages } of this.list) {
      // A page that was closed in the middle of an answer.
      for (const message of messages) if (message.state === "running") message.state = "stopped";
    }
  }

  find(id) {
    return this.list.find((one) => one.id === id) ?? null;
  }

  /** Begin a conversation; it is kept once it has a message. */
  begin(scope) {
    return { id: crypto.getRandomValues(new Uint32Array(2)).join("-"), title: "", scope, updated: Date.now(), messages: [] };
  }

  /** Keep a conversation as it is now, the newest first. */
  keep(conversation) {
    conversation.updated = Date.now();
    const first = conversation.messages.find((message) => message.role === "user");
    conversation.title = first ? first.content.replace(/\s+/g, " ").slice(0, 80) : "";
    this.list = [conversation, ...this.list.filter((one) => one !== conversation)].slice(0, MOST);
    this.#write();
  }

  delete(id) {
    this.list = this.list.filter((one) => one.id !== id);
    this.#write();
  }

  deleteAll() {
    this.list = [];
    this.#write();
  }

  #write() {
    let kept = this.list;
    // Full storage: the oldest make way.
    while (!writeConversations(JSON.stringify(kept)) && kept.length > 1) kept = kept.slice(0, -1);
    this.dispatchEvent(new Event("change"));
  }
}

export const conversations = new Conversations();

/** Keep of a source what its chip shows and what opens it. */
export function trimSource(source) {
  const { number, path, title, heading_path, page, chunk_ids, cited, text = "" } = source;
  return { number, path, title, heading_path, page, chunk_ids, cited, text: text.slice(0, EXCERPT) };
}
