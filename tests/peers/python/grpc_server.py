"""demo.v1.Greeter and grpc.health.v1.Health served by grpcio, the C core of gRPC, in cleartext. Says {port}."""

import time
from concurrent import futures

import grpc

from greeter import (CountdownReply, CountdownRequest, HealthReply, HealthRequest, HelloReply, HelloRequest, end_with_parent,
                     ready, serialize)


def echo(context):
    context.send_initial_metadata(
        [(name, value) for name, value in context.invocation_metadata() if name.startswith("x-echo")])


def say_hello(request, context):
    echo(context)
    if not request.name:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "name is empty")
    user = dict(context.invocation_metadata()).get("x-auth-user", "")
    return HelloReply(message=f"Hello, {request.name}!", user=user)


def countdown(request, context):
    echo(context)
    start = getattr(request, "from")
    if start > 10_000:
        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "from is too large")
    for left in range(start, -1, -1):
        if left == request.abort_at and left:
            context.abort(grpc.StatusCode.ABORTED, f"aborted at {left}")
        yield CountdownReply(left=left)
        if left and request.pause_ms:
            pause(request.pause_ms, context)


def pause(milliseconds, context):
    end = time.monotonic() + milliseconds / 1_000
    while context.is_active() and time.monotonic() < end:
        time.sleep(min(0.01, max(0.0, end - time.monotonic())))


def check(_request, _context):
    return HealthReply(status=1)


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", 8 << 20)])
    unary, stream = grpc.unary_unary_rpc_method_handler, grpc.unary_stream_rpc_method_handler
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("demo.v1.Greeter", {
            "SayHello": unary(say_hello, HelloRequest.FromString, serialize),
            "Countdown": stream(countdown, CountdownRequest.FromString, serialize),
        }),
        grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
            "Check": unary(check, HealthRequest.FromString, serialize),
        }),
    ))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    end_with_parent()
    ready({"port": port})
    server.wait_for_termination()


serve()
