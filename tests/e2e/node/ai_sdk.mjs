// What test_other_clients.py runs: the Vercel AI SDK, unmodified. Prints one JSON object.
import { createOpenAI } from "@ai-sdk/openai";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { embed, embedMany, generateText, Output, stepCountIs, streamText, tool } from "ai";
import { z } from "zod";

const [baseURL, chatName] = process.argv.slice(2);
const compatible = createOpenAICompatible({ name: "quarry", baseURL, apiKey: "any", includeUsage: true, supportsStructuredOutputs: true });
const openai = createOpenAI({ baseURL, apiKey: "any" });
const prompt = "When does the nightly backup start?";
const Start = z.object({ hour: z.number().int().min(0).max(23) });
const weather = tool({
  description: "Tell the weather in a place.",
  inputSchema: z.object({ place: z.enum(["Oslo"]) }),
  execute: async ({ place }) => `Rain in ${place}.`,
});

async function all(documents, chat) {
  const whole = await generateText({ model: documents, prompt, maxRetries: 0 });
  const stream = streamText({ model: documents, prompt, maxRetries: 0, onError: () => {} });
  let streamed = "";
  for await (const text of stream.textStream) streamed += text;
  const usage = await stream.usage;
  const formed = await generateText({ model: chat, prompt, output: Output.object({ schema: Start }), maxRetries: 0, temperature: 0 });
  const called = await generateText({
    model: chat, prompt: "Weather in Oslo?", tools: { weather }, toolChoice: "required", stopWhen: stepCountIs(1), maxRetries: 0,
  });
  const streamedCall = streamText({
    model: chat, prompt: "Weather in Oslo?", tools: { weather }, toolChoice: { type: "tool", toolName: "weather" },
    stopWhen: stepCountIs(1), maxRetries: 0,
  });
  const calls = [];
  for await (const part of streamedCall.fullStream) if (part.type === "tool-result") calls.push(part.output);
  return {
    whole: whole.text, streamed, tokens: usage.outputTokens, sources: whole.sources.length,
    hour: formed.output.hour, called: called.toolResults.map((result) => result.output), calls,
  };
}

const said = {
  compatible: await all(compatible("quarry"), compatible(chatName)),
  chat: await all(openai.chat("quarry"), openai.chat(chatName)),
  responses: await all(openai("quarry"), openai(chatName)),
};
const stores = await (await fetch(`${baseURL}/vector_stores`)).json();
const searched = await generateText({
  model: openai(chatName), prompt, maxRetries: 0,
  tools: { file_search: openai.tools.fileSearch({ vectorStoreIds: [stores.data[0].id] }) },
});
said.searched = { text: searched.text, files: searched.sources.map((source) => source.filename) };
const { embedding } = await embed({ model: openai.embedding("text-embedding-3-small"), value: "a", maxRetries: 0 });
const { embeddings } = await embedMany({ model: compatible.textEmbeddingModel("text-embedding-3-small"), values: ["a", "b"], maxRetries: 0 });
said.dimensions = [embedding.length, ...embeddings.map((one) => one.length)];
said.error = await generateText({ model: compatible("nobody"), prompt, maxRetries: 0 }).catch((error) => [error.statusCode, error.message]);
console.log(JSON.stringify(said));
