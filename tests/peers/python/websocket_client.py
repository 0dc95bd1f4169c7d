"""`websockets` as a client, with and without compression.

Argument: {url, root, token, refusals}. With `root`, a PEM file, the server must prove to be who the URL names. With `refusals`
a gateway is in front, which demands the token.
"""

import asyncio
import os
import ssl

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from greeter import ASKED, end_with_parent, report

BIG = os.urandom(1 << 20)


def options(path="/", token=ASKED["token"], **more):
    context = None
    if ASKED.get("root"):
        context = ssl.create_default_context(cafile=ASKED["root"])
        # The name in the URL is that of the certificate; it leads to loopback.
        more["host"] = "127.0.0.1"
    headers = {"authorization": "Bearer " + token} if token else {}
    return {"uri": ASKED["url"] + path, "ssl": context, "additional_headers": headers, "max_size": 4 << 20, **more}


CASES = []


def case(run):
    def within_patience():
        asyncio.run(asyncio.wait_for(run(), 20))

    within_patience.__doc__ = run.__name__.replace("_", " ")
    CASES.append(within_patience)


async def echoes(socket, *messages):
    for message in messages:
        await socket.send(message)
        assert await socket.recv() == message


@case
async def text_and_binary_come_back():
    async with connect(**options()) as socket:
        await echoes(socket, "grüße", "", b"\x00\xff", b"", "x" * 125, "x" * 126, b"y" * 65_535, b"y" * 65_536)


@case
async def a_mebibyte_comes_back():
    for compression in ("deflate", None):
        async with connect(**options(compression=compression)) as socket:
            await echoes(socket, BIG, BIG.hex())


@case
async def fragments_come_back():
    async with connect(**options("/fragments")) as socket:
        await socket.send(["one ", "two ", "three"])
        assert await socket.recv() == "one two three"
        await socket.send([BIG[:1000], BIG[1000:]])
        assert await socket.recv() == BIG
        await socket.send("cut into three")
        assert "".join([piece async for piece in socket.recv_streaming()]) == "cut into three"


@case
async def pings_are_answered():
    async with connect(**options()) as socket:
        for _ in range(3):
            await (await socket.ping(b"?"))
        await echoes(socket, "still here")


@case
async def the_servers_close_code_arrives():
    for code in (1000, 1011, 3000, 4321):
        async with connect(**options()) as socket:
            await socket.send(f"close {code}")
            try:
                await socket.recv()
            except ConnectionClosed as closed:
                assert (closed.rcvd.code, closed.rcvd.reason) == (code, "as told"), closed
            else:
                raise AssertionError("it went on")


@case
async def the_clients_close_code_is_answered():
    socket = await connect(**options())
    await echoes(socket, "hello")
    await socket.close(4000, "enough")
    assert (socket.close_code, socket.close_reason) == (4000, "enough")


@case
async def the_subprotocol_is_agreed_on():
    async with connect(**options(subprotocols=["other", "chat"])) as socket:
        assert socket.subprotocol == "chat"


@case
async def many_messages_keep_their_order():
    async with connect(**options()) as socket:
        sent = [f"{number}" * (number % 50) for number in range(1_000)]
        sending = asyncio.create_task(send_all(socket, sent))
        assert [await socket.recv() for _ in sent] == sent
        await sending


async def send_all(socket, messages):
    for message in messages:
        await socket.send(message)


async def without_a_token_there_is_no_socket():
    try:
        async with connect(**options(token=None)):
            raise AssertionError("it was let in")
    except InvalidStatus as refusal:
        assert refusal.response.status_code == 401
        assert b"credential_missing" in refusal.response.body


if ASKED.get("refusals"):
    case(without_a_token_there_is_no_socket)
end_with_parent()
report(CASES)
