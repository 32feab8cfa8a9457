// The real socket.io-client comes back after a lost connection, as a page has to do it; prints one JSON object and exits
// with 0 where all went well. Arguments: node_modules directory, server URL, transports (comma-separated).
"use strict";
const assert = require("node:assert");
const { createRequire } = require("node:module");

const [modules, url, transportList] = process.argv.slice(2);
const { io } = createRequire(modules + "/")("socket.io-client");
const transports = transportList.split(",");

/** A user who comes back: what a page needs for that, and no more. */
class User {
  constructor() {
    this.socket = io(url, { path: "/ws", transports, reconnectionDelay: 20, reconnectionDelayMax: 50, forceNew: true });
    this.ids = [];
    this.userId = "";
    this.token = "";
    this.received = 0;
    this.events = [];
    this.socket.onAny((name, payload) => {
      if (name !== "audioLevels") this.received += 1;
      this.events.push([name, payload]);
    });
    this.socket.on("connect", () => {
      this.ids.push(this.socket.id);
      if (this.token) this.resumed = this.ask("resume", { resumeToken: this.token, received: this.received });
      else this.userId = this.socket.id;
    });
  }

  ask(name, payload = {}) {
    return new Promise((resolve, reject) => {
      this.socket.timeout(5000).emit(name, payload, (error, ack) => {
        if (error) return reject(error);
        if (ack.resumeToken && ack.resumeToken !== this.token) {
          this.token = ack.resumeToken;
          this.received = 0;
        }
        resolve(ack);
      });
    });
  }
}

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
  const stays = new User();
  const goes = new User();
  await Promise.all([once(stays.socket, "connect"), once(goes.socket, "connect")]);
  if (transports.length > 1 && goes.socket.io.engine.transport.name === "polling") {
    await once(goes.socket.io.engine, "upgrade");
  }
  const { roomId } = await stays.ask("createRoom");
  const joined = await goes.ask("joinRoom", { roomId, resumable: true });
  assert.strictEqual(joined.resumeSeconds, 60);
  await stays.ask("joinRoom", { roomId, name: "first" });
  await goes.ask("listProducers", { roomId });
  assert.strictEqual(goes.events.at(-1)[0], "roomProducersChanged");

  for (const name of ["second", "third"]) {
    // As engine.io-client does it where no ping comes any more, or the browser says that it is offline.
    goes.events.length = 0;
    const again = once(goes.socket, "connect");
    goes.socket.io.reconnection(false);
    goes.socket.io.engine.close();
    await stays.ask("joinRoom", { roomId, name });
    goes.socket.io.reconnection(true);
    goes.socket.connect();
    await again;
    const ack = await goes.resumed;
    assert.strictEqual(ack.userId, goes.userId);
    assert.deepStrictEqual(ack.roomIds, [roomId]);
    assert.notStrictEqual(goes.socket.id, goes.userId);
    assert.deepStrictEqual(await goes.ask("listProducers", { roomId }), { producers: [] });
    // Everything once, and in order.
    assert.deepStrictEqual(goes.events.map(([event]) => event), ["peersChanged", "roomProducersChanged"]);
    assert.deepStrictEqual(goes.events[0][1].peers.map((peer) => peer.name), [name, null]);
    assert.deepStrictEqual(goes.events[0][1].peers[1].userId, goes.userId);
  }

  const left = once(stays.socket, "peersChanged");
  goes.socket.disconnect();
  assert.strictEqual((await left)[0].peers.length, 1);
  const closed = once(stays.socket.io.engine, "close");
  stays.socket.disconnect();
  await closed;
  console.log(JSON.stringify({ ids: goes.ids, userId: goes.userId }));
}

main().then(
  () => process.exit(0),
  (error) => {
    console.error(error);
    process.exit(1);
  },
);
