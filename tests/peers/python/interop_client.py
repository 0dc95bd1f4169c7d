"""The interoperability cases of gRPC, by grpcio, against each of some servers.

Argument: {targets: [{label, target, root, name}]}. With `root`, a PEM file, the channel is TLS and the server must prove to
be `name`.
"""

import functools
import queue

import grpc

from greeter import ASKED, end_with_parent, report, serialize
from interop import INITIAL, SERVICE, TRAILING, M, payload

PATIENCE = 20
REQUESTS = [27182, 8, 1828, 45904]
RESPONSES = [31415, 9, 2653, 58979]
SPECIAL = "\t\ntest with whitespace\r\nand Unicode BMP \u263a and non-BMP \U0001f608\t\n"


def equal(found, expected):
    assert found == expected, f"{found!r} instead of {expected!r}"


def refusal(function):
    try:
        function()
    except grpc.RpcError as error:
        return error.code(), error.details()
    raise AssertionError("it was answered")


class Peer:
    def __init__(self, target, root=None, name=None, **_):
        options = [("grpc.max_receive_message_length", 8 << 20), ("grpc.enable_retries", 0)]
        if root:
            options.append(("grpc.ssl_target_name_override", name))
            with open(root, "rb") as pem:
                channel = grpc.secure_channel(target, grpc.ssl_channel_credentials(pem.read()), options)
        else:
            channel = grpc.insecure_channel(target, options)

        def method(kind, name, answer, service=SERVICE):
            return getattr(channel, kind)(f"/{service}/{name}", serialize, M[answer].FromString)

        self.empty = method("unary_unary", "EmptyCall", "Empty")
        self.unary = method("unary_unary", "UnaryCall", "SimpleResponse")
        self.output = method("unary_stream", "StreamingOutputCall", "StreamingOutputCallResponse")
        self.input = method("stream_unary", "StreamingInputCall", "StreamingInputCallResponse")
        self.duplex = method("stream_stream", "FullDuplexCall", "StreamingOutputCallResponse")
        self.missing = method("unary_unary", "UnimplementedCall", "Empty")
        self.nowhere = method("unary_unary", "UnimplementedCall", "Empty", "grpc.testing.UnimplementedService")


class Sender:
    """Requests that are sent one by one; iterating ends at `close`."""

    def __init__(self):
        self.waiting = queue.Queue()

    def __iter__(self):
        return iter(self.waiting.get, None)

    def ask(self, *sizes, body=0, interval_us=0, status=None):
        parameters = [M["ResponseParameters"](size=size, interval_us=interval_us) for size in sizes]
        self.waiting.put(M["StreamingOutputCallRequest"](
            response_parameters=parameters, payload=payload(body), response_status=status))

    def close(self):
        self.waiting.put(None)


def empty_unary(peer):
    equal(peer.empty(M["Empty"](), timeout=PATIENCE), M["Empty"]())


def large_unary(peer):
    answer = peer.unary(M["SimpleRequest"](response_size=314159, payload=payload(271828)), timeout=PATIENCE)
    equal(answer.payload.body, bytes(314159))


def client_streaming(peer):
    sent = (M["StreamingInputCallRequest"](payload=payload(size)) for size in REQUESTS)
    equal(peer.input(sent, timeout=PATIENCE).aggregated_payload_size, 74922)


def server_streaming(peer):
    parameters = [M["ResponseParameters"](size=size) for size in RESPONSES]
    answers = peer.output(M["StreamingOutputCallRequest"](response_parameters=parameters), timeout=PATIENCE)
    equal([len(answer.payload.body) for answer in answers], RESPONSES)


def ping_pong(peer):
    sender = Sender()
    call = peer.duplex(iter(sender), timeout=PATIENCE)
    for request, response in zip(REQUESTS, RESPONSES):
        sender.ask(response, body=request)
        equal(len(next(call).payload.body), response)
    sender.close()
    equal(list(call), [])
    equal(call.code(), grpc.StatusCode.OK)


def empty_stream(peer):
    equal(list(peer.duplex(iter([]), timeout=PATIENCE)), [])


def custom_metadata(peer):
    sent = [(INITIAL, "test_initial_metadata_value"), (TRAILING, b"\xab\xab\xab")]
    request = M["SimpleRequest"](response_size=314159, payload=payload(271828))
    _, call = peer.unary.with_call(request, metadata=sent, timeout=PATIENCE)
    sender = Sender()
    sender.ask(31415, body=27182)
    sender.close()
    stream = peer.duplex(iter(sender), metadata=sent, timeout=PATIENCE)
    equal(len(list(stream)), 1)
    for seen in (call, stream):
        equal(dict(seen.initial_metadata())[INITIAL], "test_initial_metadata_value")
        equal(dict(seen.trailing_metadata())[TRAILING], b"\xab\xab\xab")


def status_code_and_message(peer):
    status = M["EchoStatus"](code=2, message="test status message")
    expected = (grpc.StatusCode.UNKNOWN, "test status message")
    equal(refusal(lambda: peer.unary(M["SimpleRequest"](response_status=status), timeout=PATIENCE)), expected)
    sender = Sender()
    sender.ask(status=status)
    sender.close()
    equal(refusal(lambda: list(peer.duplex(iter(sender), timeout=PATIENCE))), expected)


def special_status_message(peer):
    status = M["EchoStatus"](code=2, message=SPECIAL)
    found = refusal(lambda: peer.unary(M["SimpleRequest"](response_status=status), timeout=PATIENCE))
    equal(found, (grpc.StatusCode.UNKNOWN, SPECIAL))


def unimplemented_method(peer):
    equal(refusal(lambda: peer.missing(M["Empty"](), timeout=PATIENCE))[0], grpc.StatusCode.UNIMPLEMENTED)


def unimplemented_service(peer):
    equal(refusal(lambda: peer.nowhere(M["Empty"](), timeout=PATIENCE))[0], grpc.StatusCode.UNIMPLEMENTED)


def cancel_after_begin(peer):
    sender = Sender()
    call = peer.input.future(iter(sender), timeout=PATIENCE)
    call.cancel()
    sender.close()
    assert call.cancelled()
    equal(call.code(), grpc.StatusCode.CANCELLED)


def cancel_after_first_response(peer):
    sender = Sender()
    sender.ask(31415, body=27182)
    call = peer.duplex(iter(sender), timeout=PATIENCE)
    equal(len(next(call).payload.body), 31415)
    call.cancel()
    sender.close()
    equal(refusal(lambda: next(call))[0], grpc.StatusCode.CANCELLED)


def timeout_on_sleeping_server(peer):
    sender = Sender()
    sender.ask(31415, body=27182, interval_us=30_000_000)
    call = peer.duplex(iter(sender), timeout=0.1)
    found = refusal(lambda: next(call))[0]
    sender.close()
    equal(found, grpc.StatusCode.DEADLINE_EXCEEDED)


CASES = [empty_unary, large_unary, client_streaming, server_streaming, ping_pong, empty_stream, custom_metadata,
         status_code_and_message, special_status_message, unimplemented_method, unimplemented_service, cancel_after_begin,
         cancel_after_first_response, timeout_on_sleeping_server, large_unary]


def all_cases():
    for target in ASKED["targets"]:
        peer = Peer(**target)
        for case in CASES:
            bound = functools.partial(case, peer)
            bound.__doc__ = f"{target['label']}: {case.__name__}"
            yield bound


end_with_parent()
report(list(all_cases()))
