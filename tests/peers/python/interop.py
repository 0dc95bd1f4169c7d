"""The messages of grpc.testing.TestService, described by hand: what gRPC's own interoperability cases speak."""

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto
INT32, STRING, BYTES = Field.TYPE_INT32, Field.TYPE_STRING, Field.TYPE_BYTES

# Name: [(field, number, type)]; a type that is a name is a message, in a list it is repeated.
MESSAGES = {
    "Empty": [],
    "Payload": [("body", 2, BYTES)],
    "EchoStatus": [("code", 1, INT32), ("message", 2, STRING)],
    "SimpleRequest": [("response_size", 2, INT32), ("payload", 3, "Payload"), ("response_status", 7, "EchoStatus")],
    "SimpleResponse": [("payload", 1, "Payload")],
    "StreamingInputCallRequest": [("payload", 1, "Payload")],
    "StreamingInputCallResponse": [("aggregated_payload_size", 1, INT32)],
    "ResponseParameters": [("size", 1, INT32), ("interval_us", 2, INT32)],
    "StreamingOutputCallRequest": [
        ("response_parameters", 2, ["ResponseParameters"]), ("payload", 3, "Payload"), ("response_status", 7, "EchoStatus")],
    "StreamingOutputCallResponse": [("payload", 1, "Payload")],
}

SERVICE = "grpc.testing.TestService"
INITIAL, TRAILING = "x-grpc-test-echo-initial", "x-grpc-test-echo-trailing-bin"


def _classes():
    file = descriptor_pb2.FileDescriptorProto(name="interop.proto", package="grpc.testing", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for field, number, kind in fields:
            repeated = isinstance(kind, list)
            kind = kind[0] if repeated else kind
            label = Field.LABEL_REPEATED if repeated else Field.LABEL_OPTIONAL
            if isinstance(kind, str):
                message.field.add(name=field, number=number, type=Field.TYPE_MESSAGE, type_name=f".grpc.testing.{kind}", label=label)
            else:
                message.field.add(name=field, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"grpc.testing.{name}")) for name in MESSAGES}


M = _classes()


def payload(size):
    return M["Payload"](body=bytes(size))
