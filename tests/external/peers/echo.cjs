// Says on standard output how Node's http understood each request. Argument: the port, 0 for any.
const http = require("node:http");

const MINTED = '{"token":"crs_peer","expiresAt":"2999-01-01T00:00:00Z"}';
const hex = (text) => Buffer.from(text, "latin1").toString("hex");

const server = http.createServer((request, response) => {
  const pieces = [];
  request.on("data", (piece) => pieces.push(piece));
  request.on("error", () => {});
  request.on("end", () => {
    if (request.url.startsWith("/app/")) {
      response.end(MINTED);
      return;
    }
    const headers = [];
    for (let at = 0; at < request.rawHeaders.length; at += 2) {
      headers.push([request.rawHeaders[at].toLowerCase(), hex(request.rawHeaders[at + 1])]);
    }
    console.log(JSON.stringify({
      method: request.method,
      target: hex(request.url),
      headers,
      body: Buffer.concat(pieces).toString("hex"),
      whole: request.complete,
    }));
    response.setHeader("X-Peer", "node");
    response.end("understood");
  });
});
server.listen(Number(process.argv[2]), "127.0.0.1", () => console.log(server.address().port));
