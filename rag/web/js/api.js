// The service, over its HTTP API: OpenAI's wire where there is one.

import { t } from "./i18n.js";
import { getKey } from "./settings.js";

/** An answer that is an error, with the words of the server where it has some. */
export class ApiError extends Error {
  constructor(message, { status = 0, code = null, retryAfter = null } = {}) {
    super(message);
    this.status = status;
    this.code = code;
    this.retryAfter = retryAfter;
  }
}

let askForKey = async () => false;

/** Say how a key is asked for: `ask(isWrong)` resolves to true once there is another one. */
export function onKeyNeeded(ask) {
  askForKey = ask;
}

export function headers(more = {}) {
  const key = getKey();
  return key ? { Authorization: `Bearer ${key}`, ...more } : more;
}

/** Send a request. A missing or wrong key is asked for, and the request sent again. Throws: ApiError. */
export async function send(method, path, { body = null, signal = null } = {}) {
  for (;;) {
    const init = { method, signal, headers: headers(body === null ? {} : { "Content-Type": "application/json" }) };
    if (body !== null) init.body = JSON.stringify(body);
    let response;
    try {
      response = await fetch(path, init);
    } catch (error) {
      if (error.name === "AbortError") throw error;
      throw new ApiError(t("error.unreachable"), { code: "unreachable" });
    }
    if (response.ok) return response;
    const error = await readError(response);
    if (response.status !== 401 || !(await askForKey(Boolean(getKey())))) throw error;
  }
}

export const get = async (path, options) => (await send("GET", path, options)).json();
export const post = async (path, body, options) => (await send("POST", path, { body, ...options })).json();
export const remove = async (path) => (await send("DELETE", path)).json();

async function readError(response) {
  const retryAfter = Number(response.headers.get("retry-after")) || null;
  try {
    const { error } = await response.json();
    return new ApiError(error.message, { status: response.status, code: error.code, retryAfter });
  } catch {
    return new ApiError(t("error.status", { status: response.status }), { status: response.status, retryAfter });
  }
}

/** Ask, and yield the chunks of the streamed answer. `onSources` gets what was found before the first word. */
export async function* streamChat(body, { signal, onSources }) {
  const response = await send("POST", "/v1/chat/completions", { body: { ...body, stream: true }, signal });
  const found = response.headers.get("x-quarry-sources");
  if (found) onSources(JSON.parse(found));
  let isWhole = false;
  for await (const data of events(response.body)) {
    if (data === "[DONE]") {
      isWhole = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw new ApiError(chunk.error.message, { code: chunk.error.code });
    yield chunk;
  }
  if (!isWhole) throw new ApiError(t("error.cut"), { code: "cut" });
}

/** Read the data of server-sent events. */
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      held += value;
      const lines = held.split("\n");
      held = lines.pop();
      for (const line of lines) if (line.startsWith("data: ")) yield line.slice(6);
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** Read JSON lines as they come. */
export async function* jsonLines(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    held += value ?? "";
    const lines = held.split("\n");
    held = done ? "" : lines.pop();
    for (const line of lines) if (line) yield JSON.parse(line);
    if (done) return;
  }
}

/** Upload a file with its progress (0 to 1), which fetch cannot tell. Throws: ApiError. */
export function upload(file, { onProgress, signal }) {
  return new Promise((resolve, reject) => {
    const form = new FormData();
    form.append("purpose", "assistants");
    form.append("file", file, file.name);
    const request = new XMLHttpRequest();
    request.open("POST", "/v1/files");
    for (const [name, value] of Object.entries(headers())) request.setRequestHeader(name, value);
    request.responseType = "json";
    request.upload.onprogress = (event) => event.lengthComputable && onProgress(event.loaded / event.total);
    request.onload = () => {
      const answer = request.response;
      if (request.status >= 200 && request.status < 300 && answer) resolve(answer);
      else {
        const message = answer?.error?.message ?? t("error.status", { status: request.status });
        reject(new ApiError(message, { status: request.status, code: answer?.error?.code }));
      }
    };
    request.onerror = () => reject(new ApiError(t("error.unreachable"), { code: "unreachable" }));
    request.onabort = () => reject(new DOMException("stopped", "AbortError"));
    signal?.addEventListener("abort", () => request.abort());
    request.send(form);
  });
}
