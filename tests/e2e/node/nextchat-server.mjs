// What the server route of ChatGPT-Next-Web 2.16.1 does with BASE_URL and OPENAI_API_KEY: it hands /api/openai/… on,
// the body as a stream, the query dropped, few headers. Prints its port; serves the folder beside it as the page.
import { createReadStream } from "node:fs";
import { createServer } from "node:http";
import { Readable } from "node:stream";

let base = process.env.BASE_URL;
if (!base.startsWith("http")) base = `https://${base}`;
if (base.endsWith("/")) base = base.slice(0, -1);

const files = { "/": ["page.html", "text/html"], "/nextchat.mjs": ["nextchat.mjs", "text/javascript"] };

createServer(async (request, reply) => {
  const path = new URL(request.url, "http://own").pathname;
  if (!path.startsWith("/api/openai/")) {
    const [name, type] = files[path] ?? [`node_modules/@fortaine/fetch-event-source/lib/esm/${path.split("/").pop()}`, "text/javascript"];
    reply.setHeader("content-type", type);
    createReadStream(name).on("error", () => reply.writeHead(404).end()).pipe(reply);
    return;
  }
  const given = request.headers.authorization ?? "";
  try {
    const answer = await fetch(`${base}/${path.replaceAll("/api/openai/", "")}`, {
      method: request.method,
      headers: {
        "Content-Type": "application/json",
        "Cache-Control": "no-store",
        Authorization: given || `Bearer ${process.env.OPENAI_API_KEY}`,
      },
      body: request.method === "POST" ? Readable.toWeb(request) : undefined,
      redirect: "manual",
      duplex: "half",
    });
    const headers = new Headers(answer.headers);
    for (const name of ["www-authenticate", "content-encoding", "transfer-encoding"]) headers.delete(name);
    reply.writeHead(answer.status, Object.fromEntries(headers));
    Readable.fromWeb(answer.body).pipe(reply);
  } catch (error) {
    reply.setHeader("content-type", "application/json");
    reply.end(JSON.stringify({ cause: String(error.cause) }));
  }
}).listen(0, "127.0.0.1", function () {
  console.log(this.address().port);
});
