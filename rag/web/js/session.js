// The conversation that is open, and the answer that is being written. It goes on while other views are looked at.

import { streamChat } from "./api.js";
import { conversations, trimSource } from "./conversations.js";
import { currentLanguage } from "./i18n.js";

export const ALL = "quarry";

/** Events: `change` (messages came or went), `progress` (an answer grew; detail: the message). */
class Session extends EventTarget {
  conversation = conversations.begin(ALL);
  #abort = null;

  get isRunning() {
    return this.#abort !== null;
  }

  open(conversation) {
    this.stop();
    this.conversation = conversation;
    this.#changed();
  }

  begin() {
    this.open(conversations.begin(this.conversation.scope));
  }

  setScope(scope) {
    this.conversation.scope = scope;
  }

  /** Ask a question after the messages that are there. */
  async ask(question) {
    this.stop();
    const { messages } = this.conversation;
    messages.push({ role: "user", content: question });
    await this.#answer();
  }

  /** Ask message `index` in other words; what came after it goes. */
  async edit(index, question) {
    this.stop();
    this.conversation.messages.splice(index);
    await this.ask(question);
  }

  /** Answer the question before message `index` anew. */
  async retry(index) {
    this.stop();
    this.conversation.messages.splice(index);
    await this.#answer();
  }

  /** End the answer that is being written; what came of it stays. */
  stop() {
    this.#abort?.abort();
  }

  async #answer() {
    const { conversation } = this;
    const history = conversation.messages
      .filter(({ content }) => content)
      .map(({ role, content }) => ({ role, content }));
    const message = { role: "assistant", content: "", state: "running", found: [], sources: [], started: Date.now() };
    conversation.messages.push(message);
    const abort = new AbortController();
    this.#abort = abort;
    conversations.keep(conversation);
    this.#changed();
    const body = { model: conversation.scope, messages: history, sources_footer: false, source_links: "none" };
    try {
      const onSources = (found) => {
        message.found = found;
        this.#progressed(message);
      };
      for await (const chunk of streamChat(body, { signal: abort.signal, onSources })) {
        this.#take(message, chunk);
      }
      message.state = "done";
    } catch (error) {
      if (error.name === "AbortError") {
        message.state = "stopped";
      } else {
        message.state = "failed";
        message.error = { message: error.message, status: error.status ?? 0, code: error.code ?? null, retryAfter: error.retryAfter ?? null };
        // The service says in the text, too, why it stopped, for clients that see nothing else.
        message.content = message.content.replace(/\s*\[Error: [^\n]*\]\s*$/, "");
      }
    } finally {
      if (this.#abort === abort) this.#abort = null;
      delete message.found;
      delete message.started;
      if (conversation.messages.includes(message)) conversations.keep(conversation);
      this.#progressed(message);
      this.dispatchEvent(new Event("end"));
    }
  }

  #take(message, chunk) {
    const choice = chunk.choices[0];
    if (choice?.delta.content) message.content += choice.delta.content;
    if (choice?.delta.reasoning_content) message.thought = (message.thought ?? "") + choice.delta.reasoning_content;
    if (choice?.finish_reason === "length") message.isCut = true;
    if (chunk.sources) message.sources = chunk.sources.map(trimSource);
    this.#progressed(message);
  }

  #changed() {
    this.dispatchEvent(new Event("change"));
  }

  #progressed(message) {
    this.dispatchEvent(new CustomEvent("progress", { detail: message }));
  }
}

export const session = new Session();

/** Say an answer as plain text, with its sources, for other programs. */
export function asText(message, heading) {
  const cited = citedSources(message);
  if (!cited.length) return message.content;
  const lines = cited.map((source) => `[${source.number}] ${place(source)}`);
  return `${message.content.trim()}\n\n${heading}${currentLanguage() === "zh" ? "：" : ":"}\n${lines.join("\n")}`;
}

/** Give the sources that an answer cites, or all of them where it cites none. */
export function citedSources({ sources = [] }) {
  const cited = sources.filter((source) => source.cited);
  return cited.length ? cited : sources;
}

/** Name a passage in one line. */
export function place({ path, heading_path = [], page }) {
  return [path, heading_path.join(" › "), page ? `p. ${page}` : ""].filter(Boolean).join(", ");
}
