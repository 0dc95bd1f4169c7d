"""WebSockets served by `websockets`: sends back every message as it came, and closes when it is told to. Says {port}.

A message `close CODE` is answered with that close code. `/fragments` sends each message back cut into pieces.
"""

import asyncio

from websockets.asyncio.server import serve

from greeter import end_with_parent, ready


def pieces(message):
    third = max(1, len(message) // 3)
    return [message[at:at + third] for at in range(0, len(message), third)] or [message]


async def echo(socket):
    async for message in socket:
        if isinstance(message, str) and message.startswith("close "):
            await socket.close(int(message.split()[1]), "as told")
        elif socket.request.path == "/fragments":
            await socket.send(pieces(message))
        else:
            await socket.send(message)


def agree(_socket, offered):
    return "chat" if "chat" in offered else None


async def main():
    async with serve(echo, "127.0.0.1", 0, select_subprotocol=agree, max_size=4 << 20) as server:
        ready({"port": server.sockets[0].getsockname()[1]})
        await server.serve_forever()


end_with_parent()
asyncio.run(main())
