// One errand with Node's own fetch; tells status and headers as JSON.
import { createReadStream, readFileSync, writeFileSync } from "node:fs";
import { Readable } from "node:stream";

const told = JSON.parse(process.argv[2]);
const options = { method: told.method, headers: told.headers, redirect: "manual" };
if (told.upload !== null && told.chunked) {
  options.body = Readable.toWeb(createReadStream(told.upload));
  options.duplex = "half";
} else if (told.upload !== null) {
  options.body = readFileSync(told.upload);
}
const answer = await fetch(told.url, options);
writeFileSync(told.into, Buffer.from(await answer.arrayBuffer()));
console.log(JSON.stringify({ status: answer.status, headers: Object.fromEntries(answer.headers) }));
