// The real socket.io-client, driven through one scenario; prints one JSON object and exits with 0 where all went well.
// Arguments: node_modules directory, server URL, path, transports (comma-separated).
"use strict";
const assert = require("node:assert");
const { createRequire } = require("node:module");

const [modules, url, path, transportList] = process.argv.slice(2);
const { io } = createRequire(modules + "/")("socket.io-client");
const transports = transportList.split(",");

const report = { ids: [], transports: [], reasons: [] };

function once(emitter, name) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error("waited for " + name)), 10000);
    emitter.once(name, (...args) => {
      clearTimeout(timer);
      resolve(args);
    });
  });
}

async function main() {
  const socket = io(url, {
    path,
    transports,
    auth: { token: "abc" },
    reconnectionDelay: 20,
    reconnectionDelayMax: 50,
    forceNew: true,
  });
  socket.on("disconnect", (reason) => report.reasons.push(reason));
  socket.on("connect", () => report.ids.push(socket.id));
  socket.on("called", (first, second, acknowledge) => acknowledge({ first, second }));

  const auth = once(socket, "auth");
  await once(socket, "connect");
  assert.deepStrictEqual(await auth, [{ token: "abc" }]);
  assert.notStrictEqual(socket.id, socket.io.engine.id);
  if (transports.length > 1 && socket.io.engine.transport.name === "polling") {
    await once(socket.io.engine, "upgrade");
  }
  report.transports.push(socket.io.engine.transport.name);

  // Acknowledgements, text and binary.
  const request = { roomId: "room_1", text: "äöü😀", list: [1, 2.5, null, true] };
  assert.deepStrictEqual(await socket.timeout(5000).emitWithAck("message-with-ack", request), request);
  const bytes = Buffer.from([0, 1, 2, 255]);
  const back = await socket.timeout(5000).emitWithAck("message-with-ack", { bytes, more: [Buffer.from("x")] });
  assert.deepStrictEqual(Buffer.from(back.bytes), bytes);
  assert.deepStrictEqual(Buffer.from(back.more[0]), Buffer.from("x"));

  // Events without one, in order.
  const received = [];
  socket.on("message-back", (number) => received.push(number));
  for (let number = 0; number < 50; number++) socket.emit("message", number);
  await socket.timeout(5000).emitWithAck("message-with-ack", 0);
  assert.deepStrictEqual(received, Array.from({ length: 50 }, (_, number) => number));

  // The server asks, we acknowledge; binary too.
  const answer = await socket.timeout(5000).emitWithAck("call", 7, bytes);
  assert.strictEqual(answer[0].first, 7);
  assert.deepStrictEqual(Buffer.from(answer[0].second), bytes);

  // Large both ways.
  const large = "x".repeat(600000);
  assert.strictEqual(await socket.timeout(5000).emitWithAck("message-with-ack", large), large);

  // Long enough for heartbeats (the server pings every 300 ms here).
  await new Promise((resolve) => setTimeout(resolve, 1000));
  assert.strictEqual(report.ids.length, 1);

  // A namespace that is not there.
  const wrong = io(url + "/wrong", { path, transports, forceNew: true, reconnection: false });
  const [error] = await once(wrong, "connect_error");
  assert.strictEqual(error.message, "Invalid namespace");
  wrong.disconnect();

  // The connection is lost: the client comes back as a new socket.
  const again = once(socket, "connect");
  socket.emit("drop");
  await again;
  assert.strictEqual(await socket.timeout(5000).emitWithAck("message-with-ack", "again"), "again");

  // The server disconnects: the client stays away until it is told to come back.
  const ended = once(socket, "disconnect");
  socket.emit("disconnect-me");
  await ended;
  assert.strictEqual(socket.active, false);
  const third = once(socket, "connect");
  socket.connect();
  await third;
  assert.strictEqual(await socket.timeout(5000).emitWithAck("message-with-ack", 3), 3);
  const closed = once(socket.io.engine, "close");
  socket.disconnect();
  await closed;

  console.log(JSON.stringify(report));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
