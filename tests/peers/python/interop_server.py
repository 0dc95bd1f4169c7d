"""grpc.testing.TestService served by grpcio, in cleartext. Says {port}."""

import time
from concurrent import futures

import grpc

from greeter import end_with_parent, ready, serialize
from interop import INITIAL, SERVICE, TRAILING, M, payload


def echo(context):
    sent = dict(context.invocation_metadata())
    if INITIAL in sent:
        context.send_initial_metadata([(INITIAL, sent[INITIAL])])
    if TRAILING in sent:
        context.set_trailing_metadata([(TRAILING, sent[TRAILING])])


def refuse(request, context):
    if request.response_status.code:
        code = next(code for code in grpc.StatusCode if code.value[0] == request.response_status.code)
        context.abort(code, request.response_status.message)


def empty(_request, context):
    echo(context)
    return M["Empty"]()


def unary(request, context):
    echo(context)
    refuse(request, context)
    return M["SimpleResponse"](payload=payload(request.response_size))


def answers(request, context):
    for asked in request.response_parameters:
        end = time.monotonic() + asked.interval_us / 1e6
        while context.is_active() and time.monotonic() < end:
            time.sleep(min(0.01, max(0.0, end - time.monotonic())))
        yield M["StreamingOutputCallResponse"](payload=payload(asked.size))


def streaming_output(request, context):
    echo(context)
    refuse(request, context)
    yield from answers(request, context)


def streaming_input(requests, context):
    echo(context)
    return M["StreamingInputCallResponse"](aggregated_payload_size=sum(len(request.payload.body) for request in requests))


def full_duplex(requests, context):
    echo(context)
    for request in requests:
        refuse(request, context)
        yield from answers(request, context)


def serve():
    server = grpc.server(futures.ThreadPoolExecutor(16), options=[("grpc.max_receive_message_length", 8 << 20)])

    def read(name):
        return M[name].FromString

    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, {
        "EmptyCall": grpc.unary_unary_rpc_method_handler(empty, read("Empty"), serialize),
        "UnaryCall": grpc.unary_unary_rpc_method_handler(unary, read("SimpleRequest"), serialize),
        "StreamingOutputCall": grpc.unary_stream_rpc_method_handler(streaming_output, read("StreamingOutputCallRequest"), serialize),
        "StreamingInputCall": grpc.stream_unary_rpc_method_handler(streaming_input, read("StreamingInputCallRequest"), serialize),
        "FullDuplexCall": grpc.stream_stream_rpc_method_handler(full_duplex, read("StreamingOutputCallRequest"), serialize),
    }),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    end_with_parent()
    ready({"port": port})
    server.wait_for_termination()


serve()
