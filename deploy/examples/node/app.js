// A web shop's front in Node without a package: every call to another service goes to attache on localhost.
//
// It knows no address, no certificate and no retry: ORDERS_URL is attache, the Host header says which service is meant.
"use strict";

const http = require("node:http");

const orders = new URL(process.env.ORDERS_URL ?? "http://localhost:15001");
const port = Number(process.env.PORT ?? 8080);
// Connections to attache are kept: it is a hop within the pod.
const agent = new http.Agent({ keepAlive: true });

function ask(path) {
  return new Promise((resolve, reject) => {
    const options = { host: orders.hostname, port: orders.port, path, agent, headers: { host: "orders" } };
    const request = http.get(options, (answer) => {
      let text = "";
      answer.setEncoding("utf8");
      answer.on("data", (part) => (text += part));
      answer.on("end", () => resolve({ status: answer.statusCode, reason: answer.headers["x-attache-reason"], text }));
      answer.on("error", reject);
    });
    request.on("error", reject);
  });
}

async function front() {
  try {
    const answer = await ask("/v1/orders?customer=ann");
    if (answer.status !== 200) {
      // One word that says why, and what attache knows about it: docs/reasons.md.
      return [502, { reason: answer.reason ?? null, status: answer.status }];
    }
    return [200, { customer: "ann", orders: JSON.parse(answer.text) }];
  } catch (error) {
    return [503, { reason: `attache isn't there: ${error.message}` }];
  }
}

http
  .createServer(async (request, response) => {
    const [status, body] = await front();
    response.writeHead(status, { "content-type": "application/json" });
    response.end(JSON.stringify(body));
  })
  .listen(port, "127.0.0.1");
