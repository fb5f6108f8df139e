// What test_other_clients.py runs: the openai package of npm, unmodified. Prints one JSON object.
import OpenAI from "openai";

const [baseURL, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey: "any", maxRetries: 0 });
const messages = [{ role: "user", content: "When does the nightly backup start?" }];
const said = {};

const whole = await client.chat.completions.create({ model: "quarry", messages });
said.whole = whole.choices[0].message.content;
said.sources = whole.sources.map((source) => source.path);

said.streamed = "";
for await (const chunk of await client.chat.completions.create({ model: "quarry", messages, stream: true }))
  said.streamed += chunk.choices[0]?.delta?.content ?? "";

const events = [];
for await (const event of await client.responses.create({ model: "quarry", input: messages, stream: true }))
  events.push(event.type);
said.first = events[0];
said.last = events.at(-1);

const schema = { type: "object", properties: { hour: { type: "integer", minimum: 0, maximum: 23 } }, required: ["hour"] };
const format = { type: "json_schema", json_schema: { name: "Start", schema, strict: true } };
const formed = await client.chat.completions.create({ model, messages, response_format: format });
said.hour = JSON.parse(formed.choices[0].message.content).hour;

const parameters = { type: "object", properties: { place: { enum: ["Oslo"] } }, required: ["place"] };
const tools = [{ type: "function", function: { name: "weather", parameters } }];
const called = await client.chat.completions.create({ model, messages, tools, tool_choice: "required" });
said.called = called.choices[0].message.tool_calls[0].function;

const { data } = await client.embeddings.create({ model: "text-embedding-3-small", input: ["a", "b"] });
said.dimensions = data.map((item) => item.embedding.length);

said.stores = [];
for await (const store of client.vectorStores.list()) said.stores.push(store.name);

said.error = await client.chat.completions
  .create({ model: "quarry", messages, store: true })
  .catch((error) => [error.constructor.name, error.status, error.code, error.param]);

console.log(JSON.stringify(said));
