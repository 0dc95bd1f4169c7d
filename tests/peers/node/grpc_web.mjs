// The official gRPC-Web client, as a browser runs it, against demo.v1.Greeter.
// Argument: { url, format: "text" | "binary", token, refusals, interop }. With `refusals` a gateway is in front: it demands the
// token, and limits the calls that have `x-limited: yes`. With `interop` it leads to grpc.testing.TestService as well.

import { strict as assert } from "node:assert";

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import XMLHttpRequest from "xhr2";

import { Greeter } from "./greeter.mjs";
import { service } from "./interop.mjs";
import { asked, report } from "./launch.mjs";

globalThis.XMLHttpRequest = XMLHttpRequest;
const { default: grpcWeb } = await import("grpc-web");
const { GrpcWebClientBase, MethodDescriptor, MethodType, StatusCode } = grpcWeb;

const client = new GrpcWebClientBase({ format: asked.format });
const bearer = { authorization: `Bearer ${asked.token}` };

function descriptor(name) {
  const method = Greeter.methods.find((method) => method.name === name);
  return new MethodDescriptor(
    `/${Greeter.typeName}/${name}`,
    method.methodKind === "unary" ? MethodType.UNARY : MethodType.SERVER_STREAMING,
    Object,
    Object,
    (message) => toBinary(method.input, create(method.input, message)),
    (bytes) => fromBinary(method.output, bytes),
  );
}

const url = (name) => `${asked.url}/${Greeter.typeName}/${name}`;

/** One unary call: what the callback and the events of the call said. */
function unary(name, message, metadata = bearer) {
  return new Promise((resolve) => {
    const seen = { metadata: {}, status: undefined };
    const call = client.rpcCall(url(name), message, metadata, descriptor(name), (error, reply) => {
      // The events of the same call come after the callback.
      setImmediate(() => resolve({ error, reply, ...seen }));
    });
    call.on("metadata", (metadata) => Object.assign(seen.metadata, metadata));
    call.on("status", (status) => { seen.status = status; });
  });
}

function stream(name, message, metadata = bearer) {
  return new Promise((resolve) => {
    const seen = { replies: [], metadata: {}, status: undefined, error: undefined };
    const call = client.serverStreaming(url(name), message, metadata, descriptor(name));
    call.on("data", (reply) => seen.replies.push(reply));
    call.on("metadata", (metadata) => Object.assign(seen.metadata, metadata));
    call.on("status", (status) => { seen.status = status; });
    call.on("error", (error) => { seen.error = error; setImmediate(() => resolve(seen)); });
    call.on("end", () => setImmediate(() => resolve(seen)));
  });
}

function assertStatus(seen, code, message) {
  assert.equal(seen.error?.code, code, `code ${seen.error?.code}: ${seen.error?.message}`);
  if (message !== undefined) assert.equal(decodeURIComponent(seen.error.message), message);
}

const large = "x".repeat(1 << 20);

const cases = {
  async "unary call"() {
    const { error, reply } = await unary("SayHello", { name: "web" });
    assert.equal(error, null);
    assert.equal(reply.message, "Hello, web!");
  },
  async "large unary call"() {
    const { error, reply } = await unary("SayHello", { name: large });
    assert.equal(error, null);
    assert.equal(reply.message.length, large.length + "Hello, !".length);
  },
  async "metadata goes there and comes back"() {
    const { error, metadata } = await unary("SayHello", { name: "web" }, { ...bearer, "x-echo-color": "green" });
    assert.equal(error, null);
    assert.equal(metadata["x-echo-color"], "green");
  },
  async "error status with its message"() {
    assertStatus(await unary("SayHello", { name: "" }), StatusCode.INVALID_ARGUMENT, "name is empty");
  },
  async "unimplemented method"() {
    assertStatus(await unary("Missing", { name: "web" }), StatusCode.UNIMPLEMENTED);
  },
  async "server streaming"() {
    const { replies, status, error } = await stream("Countdown", { from: 5 });
    assert.equal(error, undefined);
    assert.deepEqual(replies.map((reply) => reply.left), [5, 4, 3, 2, 1, 0]);
    assert.equal(status?.code, 0);
  },
  async "stream that ends with an error after some messages"() {
    const seen = await stream("Countdown", { from: 5, abortAt: 2 });
    assert.deepEqual(seen.replies.map((reply) => reply.left), [5, 4, 3]);
    assertStatus(seen, StatusCode.ABORTED, "aborted at 2");
  },
  async "stream that is refused at once"() {
    const seen = await stream("Countdown", { from: 1_000_000 });
    assert.deepEqual(seen.replies, []);
    assertStatus(seen, StatusCode.INVALID_ARGUMENT, "from is too large");
  },
};

if (asked.interop) {
  // Five zero bytes there, five zero bytes back.
  cases["empty unary call"] = () => new Promise((resolve, reject) => {
    const { path, requestSerialize, responseDeserialize } = service.emptyCall;
    const empty = new MethodDescriptor(path, MethodType.UNARY, Object, Object, requestSerialize, responseDeserialize);
    client.rpcCall(`${asked.url}${path}`, {}, {}, empty, (error, reply) => {
      if (error) return reject(error);
      try {
        assert.equal(reply.$typeName, "grpc.testing.Empty");
        resolve();
      } catch (wrong) {
        reject(wrong);
      }
    });
  });
}

if (asked.refusals) {
  Object.assign(cases, {
    async "no token is UNAUTHENTICATED"() {
      assertStatus(await unary("SayHello", { name: "web" }, {}), StatusCode.UNAUTHENTICATED);
    },
    async "no token for a stream is UNAUTHENTICATED"() {
      const seen = await stream("Countdown", { from: 5 }, {});
      assert.deepEqual(seen.replies, []);
      assertStatus(seen, StatusCode.UNAUTHENTICATED);
    },
    async "a forged token is UNAUTHENTICATED"() {
      const authorization = `${bearer.authorization.slice(0, -6)}AAAAAA`;
      assertStatus(await unary("SayHello", { name: "web" }, { authorization }), StatusCode.UNAUTHENTICATED);
    },
    async "too many calls are RESOURCE_EXHAUSTED"() {
      const seen = [];
      for (let call = 0; call < 5; call += 1) {
        seen.push((await unary("SayHello", { name: "web" }, { ...bearer, "x-limited": "yes" })).error?.code ?? 0);
      }
      assert.ok(seen[0] === 0 && seen.at(-1) === StatusCode.RESOURCE_EXHAUSTED, `${seen}`);
    },
  });
}

await report(cases);
