// What a page of another origin does with an API behind the gateway, in a real browser. Reports to its own origin.

import * as grpcWeb from "/grpc-web.js";

const API = "https://test.example";
const token = new URL(location).searchParams.get("token");

const encoder = new TextEncoder();
/** A protobuf message with one field: a short string, or a small number. */
const text = (number, value) => new Uint8Array([number << 3 | 2, value.length, ...encoder.encode(value)]);
const small = (number, value) => new Uint8Array([number << 3, value]);
const greeting = (bytes) => new TextDecoder().decode(bytes.subarray(2, 2 + bytes[1]));

const { MethodDescriptor, MethodType } = grpcWeb;
const method = (name, type) => new MethodDescriptor(`/demo.v1.Greeter/${name}`, type, Object, Object, (bytes) => bytes, (bytes) => bytes);

function unary(client, metadata) {
  return new Promise((resolve) => {
    const call = client.rpcCall(`${API}/demo.v1.Greeter/SayHello`, text(1, "page"), metadata, method("SayHello", MethodType.UNARY),
      (error, reply) => resolve(error ? `status ${error.code}` : greeting(reply)));
    call.on("metadata", () => {});
  });
}

function stream(client, metadata) {
  return new Promise((resolve) => {
    const left = [];
    const call = client.serverStreaming(`${API}/demo.v1.Greeter/Countdown`, small(1, 3), metadata, method("Countdown", MethodType.SERVER_STREAMING));
    call.on("data", (bytes) => left.push(bytes[1] ?? 0));
    call.on("error", (error) => resolve(`status ${error.code}`));
    call.on("end", () => resolve(left));
  });
}

function events() {
  return new Promise((resolve) => {
    const source = new EventSource(`${API}/api/events`, { withCredentials: true });
    const seen = [];
    source.onmessage = ({ data }) => {
      seen.push(data);
      if (seen.length === 3) {
        source.close();
        resolve(seen);
      }
    };
    source.onerror = () => resolve(`broken after ${seen}`);
  });
}

function evil() {
  return new Promise((resolve) => {
    addEventListener("message", ({ data, origin }) => resolve({ ...data, origin }));
    const frame = document.createElement("iframe");
    frame.src = "https://evil.test.example/evil";
    document.body.append(frame);
  });
}

const told = {};
async function tell(name, run) {
  const late = new Promise((resolve) => setTimeout(() => resolve("nothing within ten seconds"), 10_000));
  told[name] = await Promise.race([run().catch((error) => `${error}`), late]);
}

await tell("login", async () => (await fetch(`${API}/api/login`, { credentials: "include" })).json());
await tell("data", async () => {
  const answer = await fetch(`${API}/api/data`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${token}` },
    body: JSON.stringify({ from: "page" }),
    credentials: "include",
  });
  return { json: await answer.json(), status: answer.status, exposed: answer.headers.get("x-request-id") !== null, hidden: answer.headers.get("x-secret") };
});
await tell("without", async () => (await (await fetch(`${API}/api/data`, { credentials: "omit" })).json()));
for (const format of ["binary", "text"]) {
  const client = new grpcWeb.GrpcWebClientBase({ format });
  const bearer = { authorization: `Bearer ${token}` };
  await tell(`${format} unary`, () => unary(client, bearer));
  await tell(`${format} stream`, () => stream(client, bearer));
  await tell(`${format} refusal`, () => unary(client, {}));
}
await tell("events", events);
await tell("evil", evil);
await fetch("/report", { method: "POST", body: JSON.stringify(told) });
