// The same client and server as ../go/main.go, with every default of grpc-js: judge.js server ADDRESS | client TARGET PATTERN RATE SECONDS
const grpc = require("@grpc/grpc-js");
const bytes = (value) => value;
const method = (name, requestStream, responseStream) => ({
  path: `/judge.Judge/${name}`,
  requestStream,
  responseStream,
  requestSerialize: bytes,
  requestDeserialize: bytes,
  responseSerialize: bytes,
  responseDeserialize: bytes,
});
const service = {
  Unary: method("Unary", false, false),
  Feed: method("Feed", false, true),
  Both: method("Both", true, true),
  Watch: method("Watch", false, true),
};
const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
// Waits until n messages may have gone at this rate; 0 is as fast as it goes.
async function pace(begin, n, rate) {
  const wait = rate > 0 ? begin + (n * 1000) / rate - performance.now() : 0;
  if (wait > 1) await sleep(wait);
}

function serve(address) {
  const server = new grpc.Server();
  server.addService(service, {
    Unary: (call, answer) => answer(null, call.request),
    Both: (call) => {
      call.on("data", (message) => call.write(message));
      call.on("end", () => call.end());
    },
    Feed: async (call) => {
      const [rate, count, size] = call.request.toString().split(" ").map(Number);
      const begin = performance.now();
      const message = Buffer.alloc(size);
      for (let n = 1; n <= count && !call.cancelled; n++) {
        if (!call.write(message) && rate > 0) await new Promise((done) => call.once("drain", done));
        await pace(begin, n, rate);
      }
      call.end();
    },
    Watch: (call) => call.write(Buffer.alloc(1)),
  });
  server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error) => {
    if (error) throw error;
    console.log("ready");
  });
}

const unary = (client, size) =>
  new Promise((done, failed) => {
    const deadline = Date.now() + 60000;
    client.Unary(Buffer.alloc(size), { deadline }, (error, answer) => (error ? failed(error) : done(answer)));
  });

const feed = (client, rate, count, size) =>
  new Promise((done, failed) => {
    let n = 0;
    const call = client.Feed(Buffer.from(`${rate} ${count} ${size}`));
    call.on("data", () => n++);
    call.on("error", (error) => failed(new Error(`after ${n} of ${count}: ${error.message}`)));
    call.on("end", () => n === count && done(n));
  });

const patterns = {
  unary: async (client, rate, seconds) => {
    const begin = performance.now();
    const all = [];
    for (let n = 1; n <= rate * seconds; n++) {
      const call = unary(client, 1000);
      call.catch(() => {});
      all.push(call);
      await pace(begin, n, rate);
    }
    return (await Promise.all(all)).length;
  },
  feed: (client, rate, seconds) => feed(client, rate, rate * seconds, 1000),
  burst: (client, count) => feed(client, 0, count, 10),
  both: async (client, rate, seconds) => {
    const call = client.Both();
    let n = 0;
    const ended = new Promise((done, failed) => {
      call.on("data", () => n++);
      call.on("error", (error) => failed(new Error(`after ${n}: ${error.message}`)));
      call.on("end", () => (n === rate * seconds ? done(n) : failed(new Error(`${n} messages`))));
    });
    ended.catch(() => {});
    const begin = performance.now();
    for (let sent = 1; sent <= rate * seconds; sent++) {
      call.write(Buffer.alloc(100));
      await pace(begin, sent, rate);
    }
    call.end();
    return ended;
  },
  // Three of four calls are given up: two after their first message, one before it. A quiet stream must not notice.
  cancel: async (client, rate, seconds) => {
    const watch = (giveUp) =>
      new Promise((done, failed) => {
        const call = client.Watch(Buffer.alloc(0));
        const end = () => {
          call.cancel();
          done();
        };
        call.on("data", end);
        call.on("error", (error) => (error.code === grpc.status.CANCELLED ? done() : failed(error)));
        if (giveUp) setTimeout(end, 1);
      });
    let ended = null;
    const quiet = client.Watch(Buffer.alloc(0));
    quiet.on("data", () => {});
    quiet.on("error", (error) => (ended = error));
    const begin = performance.now();
    for (let n = 0; n < rate * seconds; n++) {
      await (n % 4 === 0 ? unary(client, 1) : watch(n % 4 === 1));
      if (ended) throw new Error(`the quiet stream ended: ${ended.message}`);
      await pace(begin, n + 1, rate);
    }
    return rate * seconds;
  },
};

async function main([role, address, pattern, rate, seconds]) {
  if (role === "server") return serve(address);
  const client = new (grpc.makeGenericClientConstructor(service, "Judge"))(address, grpc.credentials.createInsecure());
  const begin = performance.now();
  const n = await patterns[pattern](client, Number(rate), Number(seconds));
  console.log(`OK ${n} in ${((performance.now() - begin) / 1000).toFixed(1)} s`);
  process.exit(0);
}

main(process.argv.slice(2)).catch((error) => {
  console.log("FAILED", error.message);
  process.exit(1);
});
