// The interoperability cases of gRPC, by @grpc/grpc-js, against each of some servers.
// Argument: { targets: [{ label, target, root, name }] }. With `root`, a PEM file, the channel is TLS and the server must
// prove to be `name`.

import { strict as assert } from "node:assert";
import { readFileSync } from "node:fs";

import grpc from "@grpc/grpc-js";

import { absent, INITIAL, payload, service, TRAILING } from "./interop.mjs";
import { asked, report } from "./launch.mjs";

const REQUESTS = [27182, 8, 1828, 45904];
const RESPONSES = [31415, 9, 2653, 58979];
const SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \u{1f608}\t\n";
const Client = grpc.makeGenericClientConstructor({ ...service, ...absent }, "TestService");

function open({ target, root, name }) {
  const options = { "grpc.max_receive_message_length": 8 << 20, "grpc.enable_retries": 0 };
  if (!root) return new Client(target, grpc.credentials.createInsecure(), options);
  options["grpc.ssl_target_name_override"] = name;
  options["grpc.default_authority"] = name;
  return new Client(target, grpc.credentials.createSsl(readFileSync(root)), options);
}

const soon = (milliseconds = 20_000) => ({ deadline: Date.now() + milliseconds });

/** A call with one answer: what the callback said, and what came before and after. */
function one(begin) {
  return new Promise((resolve) => {
    const seen = {};
    const call = begin((error, reply) => Object.assign(seen, { error, reply }));
    call.on("metadata", (initial) => { seen.initial = initial; });
    call.on("status", (status) => setImmediate(() => resolve({ ...seen, status })));
  });
}

/** A call with a stream of answers: those, the status, and what came before. */
function many(call, onData = () => {}) {
  return new Promise((resolve) => {
    const seen = { sizes: [] };
    call.on("metadata", (initial) => { seen.initial = initial; });
    call.on("data", (reply) => {
      seen.sizes.push(reply.payload?.body.length ?? 0);
      onData(seen.sizes.length);
    });
    call.on("error", () => {});
    call.on("status", (status) => setImmediate(() => resolve({ ...seen, status })));
  });
}

const output = (sizes, body = 0, intervalUs = 0, responseStatus = undefined) => ({
  responseParameters: sizes.map((size) => ({ size, intervalUs })),
  payload: payload(body),
  responseStatus,
});
const simple = { responseSize: 314159, payload: payload(271828) };

const cases = {
  async empty_unary(client) {
    const { error } = await one((done) => client.emptyCall({}, soon(), done));
    assert.equal(error, null);
  },
  async large_unary(client) {
    const { error, reply } = await one((done) => client.unaryCall(simple, soon(), done));
    assert.equal(error, null);
    assert.equal(reply.payload.body.length, 314159);
  },
  async client_streaming(client) {
    const { error, reply } = await one((done) => {
      const call = client.streamingInputCall(soon(), done);
      for (const size of REQUESTS) call.write({ payload: payload(size) });
      call.end();
      return call;
    });
    assert.equal(error, null);
    assert.equal(reply.aggregatedPayloadSize, 74922);
  },
  async server_streaming(client) {
    const { sizes, status } = await many(client.streamingOutputCall(output(RESPONSES), soon()));
    assert.deepEqual(sizes, RESPONSES);
    assert.equal(status.code, 0);
  },
  async ping_pong(client) {
    const call = client.fullDuplexCall(soon());
    const ask = (turn) => call.write(output([RESPONSES[turn]], REQUESTS[turn]));
    ask(0);
    const { sizes, status } = await many(call, (turn) => (turn < REQUESTS.length ? ask(turn) : call.end()));
    assert.deepEqual(sizes, RESPONSES);
    assert.equal(status.code, 0);
  },
  async empty_stream(client) {
    const call = client.fullDuplexCall(soon());
    call.end();
    const { sizes, status } = await many(call);
    assert.deepEqual(sizes, []);
    assert.equal(status.code, 0);
  },
  async custom_metadata(client) {
    const metadata = new grpc.Metadata();
    metadata.set(INITIAL, "test_initial_metadata_value");
    metadata.set(TRAILING, Buffer.from([0xab, 0xab, 0xab]));
    const unary = await one((done) => client.unaryCall(simple, metadata, soon(), done));
    const call = client.fullDuplexCall(metadata, soon());
    call.write(output([31415], 27182));
    call.end();
    const stream = await many(call);
    assert.deepEqual(stream.sizes, [31415]);
    for (const { initial, status } of [unary, stream]) {
      assert.equal(status.code, 0);
      assert.deepEqual(initial.get(INITIAL), ["test_initial_metadata_value"]);
      assert.deepEqual(status.metadata.get(TRAILING), [Buffer.from([0xab, 0xab, 0xab])]);
    }
  },
  async status_code_and_message(client) {
    const responseStatus = { code: 2, message: "test status message" };
    const unary = await one((done) => client.unaryCall({ responseStatus }, soon(), done));
    const call = client.fullDuplexCall(soon());
    call.write(output([], 0, 0, responseStatus));
    call.end();
    for (const { status } of [unary, await many(call)]) {
      assert.deepEqual([status.code, status.details], [2, "test status message"]);
    }
  },
  async special_status_message(client) {
    const { status } = await one((done) => client.unaryCall({ responseStatus: { code: 2, message: SPECIAL } }, soon(), done));
    assert.deepEqual([status.code, status.details], [2, SPECIAL]);
  },
  async unimplemented_method(client) {
    const { status } = await one((done) => client.missing({}, soon(), done));
    assert.equal(status.code, grpc.status.UNIMPLEMENTED);
  },
  async unimplemented_service(client) {
    const { status } = await one((done) => client.nowhere({}, soon(), done));
    assert.equal(status.code, grpc.status.UNIMPLEMENTED);
  },
  async cancel_after_begin(client) {
    const { status } = await one((done) => {
      const call = client.streamingInputCall(soon(), done);
      setImmediate(() => call.cancel());
      return call;
    });
    assert.equal(status.code, grpc.status.CANCELLED);
  },
  async cancel_after_first_response(client) {
    const call = client.fullDuplexCall(soon());
    call.write(output([31415], 27182));
    const { sizes, status } = await many(call, () => call.cancel());
    assert.deepEqual(sizes, [31415]);
    assert.equal(status.code, grpc.status.CANCELLED);
  },
  async timeout_on_sleeping_server(client) {
    const call = client.fullDuplexCall(soon(100));
    call.write(output([31415], 27182, 30_000_000));
    const { sizes, status } = await many(call);
    assert.deepEqual(sizes, []);
    assert.equal(status.code, grpc.status.DEADLINE_EXCEEDED);
  },
  async after_all_that_large_unary(client) {
    await cases.large_unary(client);
  },
};

const every = {};
for (const target of asked.targets) {
  const client = open(target);
  for (const [name, run] of Object.entries(cases)) every[`${target.label}: ${name}`] = () => run(client);
}
await report(every);
