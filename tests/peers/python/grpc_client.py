"""grpcio, the C core of gRPC, as a client of demo.v1.Greeter and grpc.health.v1.Health.

Argument: {target, root, name, token, refusals}. With `root`, a PEM file, the channel is TLS and the server must prove to be
`name`. With `refusals` a gateway is in front: it demands the token, and limits the calls that have `x-limited: yes`.
"""

import time
from concurrent import futures

import grpc

from greeter import (ASKED, CountdownReply, CountdownRequest, HealthReply, HealthRequest, HelloReply, HelloRequest,
                     end_with_parent, report, serialize)

TOKEN = ("authorization", "Bearer " + ASKED["token"])
PATIENCE = 20
LARGE = 1 << 20


def open_channel():
    options = [("grpc.max_receive_message_length", 8 << 20), ("grpc.enable_retries", 0)]
    if not ASKED.get("root"):
        return grpc.insecure_channel(ASKED["target"], options)
    options.append(("grpc.ssl_target_name_override", ASKED["name"]))
    with open(ASKED["root"], "rb") as root:
        return grpc.secure_channel(ASKED["target"], grpc.ssl_channel_credentials(root.read()), options)


channel = open_channel()
say_hello = channel.unary_unary("/demo.v1.Greeter/SayHello", serialize, HelloReply.FromString)
missing = channel.unary_unary("/demo.v1.Greeter/Missing", serialize, HelloReply.FromString)
countdown = channel.unary_stream("/demo.v1.Greeter/Countdown", serialize, CountdownReply.FromString)
health = channel.unary_unary("/grpc.health.v1.Health/Check", serialize, HealthReply.FromString)


def count(start, pause_ms=0, abort_at=0):
    # `from` is a keyword.
    return CountdownRequest(**{"from": start, "pause_ms": pause_ms, "abort_at": abort_at})


def hello(name="grpcio", metadata=(TOKEN,), method=say_hello):
    return method(HelloRequest(name=name), metadata=metadata, timeout=PATIENCE).message


def refusal(function, *arguments, **named):
    """Code and message of a call that must fail."""
    try:
        function(*arguments, **named)
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("it was answered")


def collect(call):
    """What a stream that must fail said before, its code and its message."""
    seen = []
    code, message = refusal(lambda: seen.extend(reply.left for reply in call))
    return seen, code, message


def equal(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def unary():
    "unary call"
    equal(hello(), "Hello, grpcio!")


def empty():
    "empty message"
    equal([reply.left for reply in countdown(count(0), metadata=[TOKEN], timeout=PATIENCE)], [0])


def large():
    "large message"
    equal(len(hello("x" * LARGE)), LARGE + len("Hello, !"))


def many():
    "hundred calls, twenty at once, on one connection"
    names = [f"call {number}" for number in range(100)]
    with futures.ThreadPoolExecutor(20) as callers:
        equal(list(callers.map(hello, names)), [f"Hello, {name}!" for name in names])


def metadata():
    "metadata goes there and comes back, bytes too"
    sent = [TOKEN, ("x-echo-color", "green"), ("x-echo-color", "blue"), ("x-echo-raw-bin", b"\x00\x01\x02\xff")]
    _, call = say_hello.with_call(HelloRequest(name="grpcio"), metadata=sent, timeout=PATIENCE)
    seen = [(name, value) for name, value in call.initial_metadata() if name.startswith("x-echo")]
    equal(sorted(seen, key=str), sorted(sent[1:], key=str))


def error_status():
    "error status with its message"
    equal(refusal(hello, ""), (grpc.StatusCode.INVALID_ARGUMENT, "name is empty"))


def unimplemented():
    "unimplemented method"
    equal(refusal(hello, method=missing)[0], grpc.StatusCode.UNIMPLEMENTED)


def streaming():
    "server streaming"
    call = countdown(count(5), metadata=[TOKEN], timeout=PATIENCE)
    equal([reply.left for reply in call], [5, 4, 3, 2, 1, 0])
    equal(call.code(), grpc.StatusCode.OK)


def long_stream():
    "two thousand messages in order"
    call = countdown(count(2_000, pause_ms=1), metadata=[TOKEN], timeout=PATIENCE)
    equal([reply.left for reply in call], list(range(2_000, -1, -1)))


def prompt():
    "messages arrive as they are sent"
    times = [time.monotonic() for _ in countdown(count(3, pause_ms=250), metadata=[TOKEN], timeout=PATIENCE)]
    equal(len(times), 4)
    assert times[3] - times[0] > 0.5, f"held back: {times}"


def aborted():
    "stream that ends with an error after some messages"
    call = countdown(count(5, abort_at=2), metadata=[TOKEN], timeout=PATIENCE)
    equal(collect(call), ([5, 4, 3], grpc.StatusCode.ABORTED, "aborted at 2"))


def deadline():
    "deadline"
    call = countdown(count(5, pause_ms=5_000), metadata=[TOKEN], timeout=0.3)
    equal(collect(call)[:2], ([5], grpc.StatusCode.DEADLINE_EXCEEDED))


def cancel():
    "cancel after the first message"
    call = countdown(count(5, pause_ms=5_000), metadata=[TOKEN], timeout=PATIENCE)
    equal(next(call).left, 5)
    call.cancel()
    equal(call.code(), grpc.StatusCode.CANCELLED)


def after_cancel():
    "the connection is good after deadline and cancel"
    equal(hello(), "Hello, grpcio!")


def is_healthy():
    "grpc.health.v1 says SERVING"
    equal(health(HealthRequest(), timeout=PATIENCE).status, 1)


def no_token():
    "no token is UNAUTHENTICATED"
    equal(refusal(hello, metadata=())[0], grpc.StatusCode.UNAUTHENTICATED)


def no_token_stream():
    "no token for a stream is UNAUTHENTICATED"
    equal(collect(countdown(count(5), timeout=PATIENCE))[:2], ([], grpc.StatusCode.UNAUTHENTICATED))


def forged_token():
    "a forged token is UNAUTHENTICATED"
    forged = (TOKEN[0], TOKEN[1][:-6] + "AAAAAA")
    equal(refusal(hello, metadata=[forged])[0], grpc.StatusCode.UNAUTHENTICATED)


def limited():
    "too many calls are RESOURCE_EXHAUSTED"
    marked = [TOKEN, ("x-limited", "yes")]
    hello(metadata=marked)
    for _ in range(3):
        equal(refusal(hello, metadata=marked)[0], grpc.StatusCode.RESOURCE_EXHAUSTED)


def no_route():
    "a service without a route is refused with a gRPC status"
    unknown = channel.unary_unary("/nowhere.v1.Nobody/Nothing", serialize, HelloReply.FromString)
    equal(refusal(hello, method=unknown)[0], grpc.StatusCode.UNIMPLEMENTED)


CASES = [unary, empty, large, many, metadata, error_status, unimplemented, streaming, long_stream, prompt, aborted, deadline,
         cancel, after_cancel, is_healthy]
REFUSALS = [no_token, no_token_stream, forged_token, limited, no_route]

end_with_parent()
report(CASES + REFUSALS if ASKED.get("refusals") else CASES)
