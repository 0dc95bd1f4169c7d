// Connect's clients against demo.v1.Greeter.
// Argument: { url, transport, http: "1.1" | "2", token, refusals }. With `refusals` a gateway is in front: it demands the
// token, and limits the calls that have `x-limited: yes`.

import { strict as assert } from "node:assert";

import { Code, ConnectError, createClient } from "@connectrpc/connect";
import * as node from "@connectrpc/connect-node";
import * as web from "@connectrpc/connect-web";

import { Greeter } from "./greeter.mjs";
import { asked, report } from "./launch.mjs";

const headers = { authorization: `Bearer ${asked.token}` };
const nodeOptions = { baseUrl: asked.url, httpVersion: asked.http ?? "1.1" };
const transport = {
  "web-grpc-web": () => web.createGrpcWebTransport({ baseUrl: asked.url }),
  "web-connect": () => web.createConnectTransport({ baseUrl: asked.url }),
  "web-connect-get": () => web.createConnectTransport({ baseUrl: asked.url, useHttpGet: true }),
  "node-grpc-web": () => node.createGrpcWebTransport(nodeOptions),
  "node-grpc": () => node.createGrpcTransport(nodeOptions),
  "node-connect": () => node.createConnectTransport(nodeOptions),
  "node-connect-json": () => node.createConnectTransport({ ...nodeOptions, useBinaryFormat: false }),
}[asked.transport]();
const client = createClient(Greeter, transport);

async function refusal(call) {
  try {
    await call;
  } catch (error) {
    return ConnectError.from(error);
  }
  throw new Error("it was answered");
}

async function collect(stream, into) {
  for await (const reply of stream) into.push(reply.left);
}

const cases = {
  async "unary call"() {
    assert.equal((await client.sayHello({ name: "connect" }, { headers })).message, "Hello, connect!");
  },
  async "empty message"() {
    // All defaults: a frame of no bytes.
    const left = [];
    await collect(client.countdown({}, { headers }), left);
    assert.deepEqual(left, [0]);
  },
  async "large unary call"() {
    const name = "x".repeat(1 << 20);
    assert.equal((await client.sayHello({ name }, { headers })).message.length, name.length + "Hello, !".length);
  },
  async "metadata goes there and comes back"() {
    let seen;
    await client.sayHello({ name: "connect" }, {
      headers: { ...headers, "x-echo-color": "green", "x-echo-raw-bin": "AAEC/w" },
      onHeader: (header) => { seen = header; },
    });
    assert.equal(seen.get("x-echo-color"), "green");
    assert.equal(seen.get("x-echo-raw-bin")?.replace(/=+$/, ""), "AAEC/w");
  },
  async "error status with its message"() {
    const error = await refusal(client.sayHello({ name: "" }, { headers }));
    assert.equal(error.code, Code.InvalidArgument, error.message);
    assert.equal(error.rawMessage, "name is empty");
  },
  async "unimplemented method"() {
    const error = await refusal(client.missing({ name: "connect" }, { headers }));
    assert.equal(error.code, Code.Unimplemented, error.message);
  },
  async "server streaming"() {
    const left = [];
    await collect(client.countdown({ from: 5 }, { headers }), left);
    assert.deepEqual(left, [5, 4, 3, 2, 1, 0]);
  },
  async "messages arrive as they are sent"() {
    const times = [];
    const begin = performance.now();
    for await (const _ of client.countdown({ from: 3, pauseMs: 250 }, { headers })) times.push(performance.now() - begin);
    assert.equal(times.length, 4);
    assert.ok(times[3] - times[0] > 500, `held back: ${times}`);
  },
  async "stream that ends with an error after some messages"() {
    const left = [];
    const error = await refusal(collect(client.countdown({ from: 5, abortAt: 2 }, { headers }), left));
    assert.deepEqual(left, [5, 4, 3]);
    assert.equal(error.code, Code.Aborted, error.message);
    assert.equal(error.rawMessage, "aborted at 2");
  },
  async "deadline"() {
    const error = await refusal(collect(client.countdown({ from: 5, pauseMs: 5_000 }, { headers, timeoutMs: 300 }), []));
    assert.equal(error.code, Code.DeadlineExceeded, error.message);
  },
  async "cancel after the first message"() {
    const abort = new AbortController();
    const left = [];
    const error = await refusal((async () => {
      for await (const reply of client.countdown({ from: 5, pauseMs: 2_000 }, { headers, signal: abort.signal })) {
        left.push(reply.left);
        abort.abort();
      }
    })());
    assert.deepEqual(left, [5]);
    assert.equal(error.code, Code.Canceled, error.message);
  },
};

if (asked.refusals) {
  Object.assign(cases, {
    async "no token is UNAUTHENTICATED"() {
      const error = await refusal(client.sayHello({ name: "connect" }));
      assert.equal(error.code, Code.Unauthenticated, error.message);
    },
    async "no token for a stream is UNAUTHENTICATED"() {
      const error = await refusal(collect(client.countdown({ from: 5 }), []));
      assert.equal(error.code, Code.Unauthenticated, error.message);
    },
    async "too many calls are RESOURCE_EXHAUSTED"() {
      const seen = [];
      for (let call = 0; call < 5; call += 1) {
        const reply = client.sayHello({ name: "connect" }, { headers: { ...headers, "x-limited": "yes" } });
        seen.push(await reply.then(() => 0, (error) => ConnectError.from(error).code));
      }
      assert.ok(seen[0] === 0 && seen.at(-1) === Code.ResourceExhausted, `${seen}`);
    },
  });
}

await report(cases);
