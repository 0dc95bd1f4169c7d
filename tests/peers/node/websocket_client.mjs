// ws as a client, over HTTP/1.1 and over HTTP/2 (RFC 8441), there on a stream of node:http2.
// Argument: { url, root, token, http, refusals }. With `root`, a PEM file, the server must prove to be who the URL names.

import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { connect as connectHttp2 } from "node:http2";

import WebSocket from "ws";

import { asked, report } from "./launch.mjs";

const BIG = randomBytes(1 << 20);
// The name in the URL is that of the certificate; it leads to loopback.
const lookup = (_name, options, done) =>
  options.all ? done(null, [{ address: "127.0.0.1", family: 4 }]) : done(null, "127.0.0.1", 4);
const tls = asked.root ? { ca: readFileSync(asked.root), lookup } : {};
const credential = (token) => (token ? { authorization: `Bearer ${token}` } : {});

async function open(path = "/", { token = asked.token, protocols = [], deflate = true } = {}) {
  if (asked.http === "2") return openOverHttp2(path, token, protocols);
  const options = { headers: credential(token), perMessageDeflate: deflate, maxPayload: 4 << 20, ...tls };
  const socket = new WebSocket(asked.url + path, protocols, options);
  const refused = once(socket, "unexpected-response").then(async ([, response]) => {
    response.setEncoding("utf8");
    let body = "";
    for await (const piece of response) body += piece;
    throw Object.assign(new Error(`refused: ${response.statusCode}`), { status: response.statusCode, body });
  });
  await Promise.race([once(socket, "open"), refused]);
  refused.catch(() => {});
  return socket;
}

let session;

/** All sockets share one connection. */
async function openOverHttp2(path, token, protocols) {
  if (!session) {
    session = connectHttp2(asked.url.replace(/^ws/, "http"), tls);
    const [settings] = await once(session, "remoteSettings");
    assert.ok(settings.enableConnectProtocol, "extended CONNECT is not offered");
  }
  const stream = session.request({
    ":method": "CONNECT",
    ":protocol": "websocket",
    ":path": path,
    "sec-websocket-version": "13",
    ...(protocols.length ? { "sec-websocket-protocol": protocols.join(", ") } : {}),
    ...credential(token),
  });
  stream.setNoDelay = () => {};
  const [headers] = await once(stream, "response");
  if (headers[":status"] !== 200) {
    stream.setEncoding("utf8");
    let body = "";
    for await (const piece of stream) body += piece;
    throw Object.assign(new Error(`refused: ${headers[":status"]}`), { status: headers[":status"], body });
  }
  const socket = new WebSocket(null, undefined, { autoPong: true, closeTimeout: 10_000 });
  socket._isServer = false;
  socket.setSocket(stream, Buffer.alloc(0), { maxPayload: 4 << 20, skipUTF8Validation: false });
  socket._protocol = headers["sec-websocket-protocol"] ?? "";
  return socket;
}

async function echoes(socket, ...messages) {
  for (const message of messages) {
    socket.send(message);
    const [data, binary] = await once(socket, "message");
    assert.equal(binary, typeof message !== "string");
    assert.ok(Buffer.from(message).equals(data), `${data.length} bytes`);
  }
}

async function shut(socket, code = 1000) {
  socket.close(code, "enough");
  const [answered] = await once(socket, "close");
  assert.equal(answered, code);
}

const cases = {
  async "text and binary come back"() {
    const socket = await open();
    const sizes = [0, 1, 125, 126, 127, 65_535, 65_536].map((size) => BIG.subarray(0, size));
    await echoes(socket, "grüße", "", ...sizes);
    await shut(socket);
  },
  async "a mebibyte comes back"() {
    for (const deflate of [true, false]) {
      const socket = await open("/", { deflate });
      await echoes(socket, BIG, BIG.toString("hex"));
      await shut(socket);
    }
  },
  async "fragments come back"() {
    const socket = await open("/fragments");
    await echoes(socket, "cut in two", BIG);
    socket.send("one ", { fin: false });
    socket.send("two ", { fin: false });
    socket.send("three", { fin: true });
    const [data] = await once(socket, "message");
    assert.equal(data.toString(), "one two three");
    await shut(socket);
  },
  async "pings are answered"() {
    const socket = await open();
    socket.ping("?");
    const [answer] = await once(socket, "pong");
    assert.equal(answer.toString(), "?");
    await echoes(socket, "still here");
    await shut(socket);
  },
  async "the server's close code arrives"() {
    for (const code of [1000, 1011, 3000, 4321]) {
      const socket = await open();
      socket.send(`close ${code}`);
      const [closed, reason] = await once(socket, "close");
      assert.deepEqual([closed, reason.toString()], [code, "as told"]);
    }
  },
  async "the client's close code is answered"() {
    await shut(await open(), 4000);
  },
  async "the subprotocol is agreed on"() {
    const socket = await open("/", { protocols: ["other", "chat"] });
    assert.equal(socket.protocol, "chat");
    await shut(socket);
  },
  async "many messages keep their order"() {
    const socket = await open();
    const sent = Array.from({ length: 1_000 }, (_, number) => `${number}`.repeat(number % 50));
    const came = [];
    const all = new Promise((resolve) => {
      socket.on("message", (data) => came.push(data.toString()) === sent.length && resolve());
    });
    for (const message of sent) socket.send(message);
    await all;
    assert.deepEqual(came, sent);
    await shut(socket);
  },
};

if (asked.refusals) {
  cases["without a token there is no socket"] = async () => {
    await assert.rejects(open("/", { token: null }), (why) => {
      assert.equal(why.status, 401);
      assert.match(why.body, /credential_missing/);
      return true;
    });
  };
}

await report(cases);
