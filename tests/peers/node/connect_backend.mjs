// demo.v1.Greeter as Connect's own server for Node: it speaks Connect, gRPC and gRPC-Web.
// Argument: { http: "1.1" | "2" }; HTTP/2 is cleartext with prior knowledge. Says { port }.

import { createServer } from "node:http";
import { createServer as createHttp2Server } from "node:http2";

import { Code, ConnectError } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";

import { Greeter } from "./greeter.mjs";
import { asked, ready } from "./launch.mjs";

function echo(context) {
  for (const [name, value] of context.requestHeader) {
    if (name.startsWith("x-echo")) context.responseHeader.set(name, value);
  }
}

const greeter = {
  sayHello({ name }, context) {
    echo(context);
    if (name === "") throw new ConnectError("name is empty", Code.InvalidArgument);
    return { message: `Hello, ${name}!`, user: context.requestHeader.get("x-auth-user") ?? "" };
  },
  async *countdown({ from, pauseMs, abortAt }, context) {
    echo(context);
    if (from > 10_000) throw new ConnectError("from is too large", Code.InvalidArgument);
    for (let left = from; left >= 0; left -= 1) {
      if (left === abortAt && left !== 0) throw new ConnectError(`aborted at ${left}`, Code.Aborted);
      yield { left };
      if (left > 0) await new Promise((resolve) => setTimeout(resolve, pauseMs));
    }
  },
  missing() {
    throw new ConnectError("not here", Code.Unimplemented);
  },
};

const handler = connectNodeAdapter({ routes: (router) => router.service(Greeter, greeter), readMaxBytes: 8 << 20 });
const server = asked.http === "2" ? createHttp2Server(handler) : createServer(handler);
server.listen(0, "127.0.0.1", () => ready({ port: server.address().port }));
