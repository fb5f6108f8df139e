// The request that ChatGPT-Next-Web 2.16.1 sends from the browser, through the package that it uses for it.
// NextChat itself is in no package registry: its rules for addresses, headers and replies are written down here.
import { fetchEventSource, EventStreamContentType } from "/fetch-event-source/index.js";

// A custom endpoint as it is typed; without one the page asks its own server.
export function address(endpoint, path) {
  let base = endpoint || "/api/openai";
  if (base.endsWith("/")) base = base.slice(0, -1);
  if (!base.startsWith("http") && !base.startsWith("/api/openai")) base = "https://" + base;
  return [base, path].join("/");
}

const headersFor = (key) => ({
  "Content-Type": "application/json",
  Accept: "application/json",
  ...(key ? { Authorization: `Bearer ${key}` } : {}),
});

const settings = { temperature: 0.5, presence_penalty: 0, frequency_penalty: 0, top_p: 1 };

export function chat(endpoint, key, messages, model = "quarry") {
  const said = { text: "", thought: "", done: false, type: null, status: null };
  return new Promise((resolve, reject) => {
    fetchEventSource(address(endpoint, "v1/chat/completions"), {
      method: "POST",
      body: JSON.stringify({ messages, stream: true, model, ...settings }),
      headers: headersFor(key),
      openWhenHidden: true,
      async onopen(reply) {
        said.status = reply.status;
        said.type = reply.headers.get("content-type");
        if (reply.ok && reply.status === 200 && said.type?.startsWith(EventStreamContentType)) return;
        // Shown as the answer, in a code block.
        said.text = "```json\n" + JSON.stringify(await reply.clone().json(), null, "  ") + "\n```";
        resolve(said);
      },
      onmessage(message) {
        if (message.data === "[DONE]") {
          said.done = true;
          resolve(said);
          return;
        }
        const delta = JSON.parse(message.data).choices?.[0]?.delta;
        said.text += delta?.content ?? "";
        said.thought += delta?.reasoning_content ?? "";
      },
      onclose: () => resolve(said),
      onerror(error) {
        reject(error);
        throw error;
      },
    }).catch(reject);
  });
}

// The title that it asks for after the first answer.
export async function title(endpoint, key, messages, model = "quarry") {
  const reply = await fetch(address(endpoint, "v1/chat/completions"), {
    method: "POST",
    body: JSON.stringify({ messages, stream: false, model, ...settings }),
    headers: headersFor(key),
  });
  return (await reply.json()).choices[0].message.content;
}

// The balance query of its settings page.
export async function balance(endpoint, key) {
  const get = async (path) => (await fetch(address(endpoint, path), { headers: headersFor(key) })).json();
  return [
    (await get("dashboard/billing/usage?start_date=2026-11-01&end_date=2026-11-25")).total_usage,
    (await get("dashboard/billing/subscription")).hard_limit_usd,
  ];
}
