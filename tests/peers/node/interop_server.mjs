// grpc.testing.TestService served by @grpc/grpc-js, in cleartext. Says { port }.

import grpc from "@grpc/grpc-js";

import { INITIAL, payload, service, TRAILING } from "./interop.mjs";
import { ready } from "./launch.mjs";

/** Echoes what is asked for; returns the trailers. */
function echo(call) {
  const [initial, trailing] = [new grpc.Metadata(), new grpc.Metadata()];
  for (const value of call.metadata.get(INITIAL)) initial.set(INITIAL, value);
  for (const value of call.metadata.get(TRAILING)) trailing.set(TRAILING, value);
  call.sendMetadata(initial);
  return trailing;
}

function refusal({ responseStatus }, metadata) {
  return responseStatus?.code ? { code: responseStatus.code, details: responseStatus.message, metadata } : null;
}

async function answer(call, request) {
  for (const { size, intervalUs } of request.responseParameters) {
    for (let left = intervalUs / 1_000; left > 0 && !call.cancelled; left -= 20) {
      await new Promise((resolve) => setTimeout(resolve, Math.min(left, 20)));
    }
    if (call.cancelled) return;
    call.write({ payload: payload(size) });
  }
}

const server = new grpc.Server({ "grpc.max_receive_message_length": 8 << 20 });
server.addService(service, {
  emptyCall: (call, done) => done(null, {}, echo(call)),
  unaryCall(call, done) {
    const trailers = echo(call);
    done(refusal(call.request, trailers), { payload: payload(call.request.responseSize) }, trailers);
  },
  async streamingOutputCall(call) {
    const trailers = echo(call);
    await answer(call, call.request);
    call.end(trailers);
  },
  streamingInputCall(call, done) {
    const trailers = echo(call);
    let aggregatedPayloadSize = 0;
    call.on("data", (request) => { aggregatedPayloadSize += request.payload?.body.length ?? 0; });
    call.on("end", () => done(null, { aggregatedPayloadSize }, trailers));
  },
  fullDuplexCall(call) {
    const trailers = echo(call);
    let refused = null;
    let answered = Promise.resolve();
    call.on("data", (request) => {
      answered = answered.then(async () => {
        refused ??= refusal(request, trailers);
        if (!refused) await answer(call, request);
      });
    });
    call.on("end", () => answered.then(() => (refused ? call.emit("error", refused) : call.end(trailers))));
  },
});
server.bindAsync("127.0.0.1:0", grpc.ServerCredentials.createInsecure(), (error, port) => {
  if (error) throw error;
  ready({ port });
});
