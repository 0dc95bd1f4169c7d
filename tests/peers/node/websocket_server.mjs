// WebSockets served by ws: sends back every message as it came, and closes when it is told to. Says { port }.

import { WebSocketServer } from "ws";

import { ready } from "./launch.mjs";

const server = new WebSocketServer({
  host: "127.0.0.1",
  port: 0,
  maxPayload: 4 << 20,
  perMessageDeflate: true,
  handleProtocols: (offered) => (offered.has("chat") ? "chat" : false),
});

server.on("listening", () => ready({ port: server.address().port }));
server.on("connection", (socket, request) => {
  socket.on("message", (data, binary) => {
    const text = binary ? "" : data.toString();
    if (text.startsWith("close ")) {
      socket.close(Number(text.split(" ")[1]), "as told");
    } else if (request.url === "/fragments") {
      const middle = data.length >> 1;
      socket.send(data.subarray(0, middle), { binary, fin: false });
      socket.send(data.subarray(middle), { binary, fin: true });
    } else {
      socket.send(data, { binary });
    }
  });
});
