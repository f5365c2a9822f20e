// What the grpc-web client says, in both of its forms, as JSON: grpc_web.js URL
globalThis.XMLHttpRequest = require("xhr2");
const grpc = require("grpc-web");

const [url] = process.argv.slice(2);
const bytes = (text) => new TextEncoder().encode(text);
const text = (bytes) => new TextDecoder().decode(bytes);
const method = (name, type) => new grpc.MethodDescriptor(`/test.Echo/${name}`, type, Object, Object, bytes, text);
const UNARY = method("Unary", grpc.MethodType.UNARY);
const STREAM = method("ServerStream", grpc.MethodType.SERVER_STREAMING);

function unary(client, message, metadata) {
  return new Promise((resolve) => {
    const seen = {};
    const call = client.rpcCall(`${url}/test.Echo/Unary`, message, metadata, UNARY, (error, answer) => {
      if (error) resolve({ code: error.code, message: error.message });
      else Object.assign(seen, { answer });
    });
    call.on("status", (status) => Object.assign(seen, { code: status.code, trailer: (status.metadata || {})["x-trailer"] }));
    call.on("end", () => resolve(seen));
  });
}

function stream(client, message) {
  return new Promise((resolve) => {
    const seen = { messages: [] };
    const call = client.serverStreaming(`${url}/test.Echo/ServerStream`, message, {}, STREAM);
    call.on("data", (message) => seen.messages.push(message));
    call.on("status", (status) => Object.assign(seen, { code: status.code }));
    call.on("error", (error) => resolve({ ...seen, error: error.code }));
    call.on("end", () => resolve(seen));
  });
}

async function main() {
  const said = {};
  for (const format of ["text", "binary"]) {
    const client = new grpc.GrpcWebClientBase({ format });
    said[format] = {
      unary: await unary(client, "hello", {}),
      long: (await unary(client, "x".repeat(300000), {})).answer?.length,
      failed: await unary(client, "a", { "x-want-status": "NOT_FOUND" }),
      refused: await unary(client, "a", { "x-refuse": "1" }),
      stream: await stream(client, "5"),
    };
  }
  console.log(JSON.stringify(said));
}

main();
