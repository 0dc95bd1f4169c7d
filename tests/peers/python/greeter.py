"""The messages of demo.v1.Greeter and grpc.health.v1.Health, described by hand, and what the programs here share."""

import json
import os
import sys
import threading

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

Field = descriptor_pb2.FieldDescriptorProto
STRING, UINT32, INT32 = Field.TYPE_STRING, Field.TYPE_UINT32, Field.TYPE_INT32

MESSAGES = {
    "HelloRequest": [("name", STRING)],
    "HelloReply": [("message", STRING), ("user", STRING)],
    "CountdownRequest": [("from", UINT32), ("pause_ms", UINT32), ("abort_at", UINT32)],
    "CountdownReply": [("left", UINT32)],
    "HealthRequest": [("service", STRING)],
    "HealthReply": [("status", INT32)],
}


def _classes():
    file = descriptor_pb2.FileDescriptorProto(name="peers.proto", package="peers", syntax="proto3")
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, kind) in enumerate(fields, start=1):
            message.field.add(name=field, number=number, type=kind, label=Field.LABEL_OPTIONAL)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"peers.{name}")) for name in MESSAGES}


_BY_NAME = _classes()
HelloRequest = _BY_NAME["HelloRequest"]
HelloReply = _BY_NAME["HelloReply"]
CountdownRequest = _BY_NAME["CountdownRequest"]
CountdownReply = _BY_NAME["CountdownReply"]
HealthRequest = _BY_NAME["HealthRequest"]
HealthReply = _BY_NAME["HealthReply"]

ASKED = json.loads(sys.argv[1]) if len(sys.argv) > 1 else {}


def serialize(message):
    return message.SerializeToString()


def end_with_parent():
    """Who started us holds the other end of our standard input, and may be gone without having said so."""

    def watch():
        sys.stdin.buffer.read()
        os._exit(0)

    threading.Thread(target=watch, daemon=True).start()


def ready(facts):
    print("ready", json.dumps(facts), flush=True)


def report(cases):
    """Runs the cases one after the other: a TAP line each, the plan last."""
    for number, case in enumerate(cases, start=1):
        name = case.__doc__
        try:
            case()
            print(f"ok {number} - {name}", flush=True)
        except Exception as error:  # every failure is one line of the report
            why = f"{type(error).__name__}: {error}".replace("\n", " | ")
            print(f"not ok {number} - {name}: {why}", flush=True)
    print(f"1..{len(cases)}", flush=True)
    sys.stdout.flush()
    os._exit(0)
