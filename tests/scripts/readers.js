// Two servers of Node's HTTP/1 parser (llhttp) that say on stdout what they see: readers.js DIRECT_PORT BEHIND_PORT
//
// A line of JSON for the head of each message, and one for the end of its body. `key` is the client's address: of the connection, or of
// X-Forwarded-For behind a proxy.
"use strict";
const http = require("http");
let count = 0;

function server(port, side, key) {
  const take = (request, response) => {
    const id = count++;
    const { method, url, rawHeaders } = request;
    console.log(JSON.stringify({ id, side, key: key(request), method, url, fields: rawHeaders }));
    const body = [];
    request.on("data", (data) => body.push(data));
    request.on("error", () => {});
    request.on("end", () => {
      console.log(JSON.stringify({ id, body: Buffer.concat(body).toString("latin1") }));
      response.end("seen");
    });
  };
  const options = { keepAliveTimeout: 600000, headersTimeout: 0, requestTimeout: 0, requireHostHeader: false };
  const it = http.createServer(options, take);
  it.on("checkContinue", take);
  it.on("checkExpectation", take);
  // Behind a proxy the connection is the proxy's.
  const refused = (why, socket) => {
    if (side === "direct") console.log(JSON.stringify({ side, key: socket.remoteAddress, refused: why }));
    socket.destroy();
  };
  it.on("connect", (request, socket) => refused("CONNECT", socket));
  it.on("clientError", (error, socket) => refused(error.code, socket));
  it.listen(port, "0.0.0.0", 4096, () => console.log(JSON.stringify({ ready: port })));
}

server(Number(process.argv[2]), "direct", (request) => request.socket.remoteAddress);
server(Number(process.argv[3]), "behind", (request) => request.headers["x-forwarded-for"]);
