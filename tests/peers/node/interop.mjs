// grpc.testing.TestService, described by hand: what gRPC's own interoperability cases speak.

import { create, createFileRegistry, fromBinary, toBinary } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";

const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
const field = (name, number, type) => ({ name, number, type, label: Label.OPTIONAL, jsonName: camel(name) });
const message = (name, number, typeName) => ({ ...field(name, number, Type.MESSAGE), typeName: `.grpc.testing.${typeName}` });
const repeated = (one) => ({ ...one, label: Label.REPEATED });

const registry = createFileRegistry(create(FileDescriptorSetSchema, {
  file: [{
    name: "grpc/testing/interop.proto",
    package: "grpc.testing",
    syntax: "proto3",
    messageType: [
      { name: "Empty" },
      { name: "Payload", field: [field("body", 2, Type.BYTES)] },
      { name: "EchoStatus", field: [field("code", 1, Type.INT32), field("message", 2, Type.STRING)] },
      {
        name: "SimpleRequest",
        field: [field("response_size", 2, Type.INT32), message("payload", 3, "Payload"), message("response_status", 7, "EchoStatus")],
      },
      { name: "SimpleResponse", field: [message("payload", 1, "Payload")] },
      { name: "StreamingInputCallRequest", field: [message("payload", 1, "Payload")] },
      { name: "StreamingInputCallResponse", field: [field("aggregated_payload_size", 1, Type.INT32)] },
      { name: "ResponseParameters", field: [field("size", 1, Type.INT32), field("interval_us", 2, Type.INT32)] },
      {
        name: "StreamingOutputCallRequest",
        field: [
          repeated(message("response_parameters", 2, "ResponseParameters")),
          message("payload", 3, "Payload"),
          message("response_status", 7, "EchoStatus"),
        ],
      },
      { name: "StreamingOutputCallResponse", field: [message("payload", 1, "Payload")] },
    ],
  }],
}));

export const INITIAL = "x-grpc-test-echo-initial";
export const TRAILING = "x-grpc-test-echo-trailing-bin";

export const payload = (size) => ({ body: new Uint8Array(size) });

function method(name, request, response, requestStream = false, responseStream = false, service = "TestService") {
  const [input, output] = [request, response].map((name) => registry.getMessage(`grpc.testing.${name}`));
  return {
    path: `/grpc.testing.${service}/${name}`,
    requestStream,
    responseStream,
    requestSerialize: (value) => Buffer.from(toBinary(input, create(input, value))),
    requestDeserialize: (bytes) => fromBinary(input, bytes),
    responseSerialize: (value) => Buffer.from(toBinary(output, create(output, value))),
    responseDeserialize: (bytes) => fromBinary(output, bytes),
  };
}

export const service = {
  emptyCall: method("EmptyCall", "Empty", "Empty"),
  unaryCall: method("UnaryCall", "SimpleRequest", "SimpleResponse"),
  streamingOutputCall: method("StreamingOutputCall", "StreamingOutputCallRequest", "StreamingOutputCallResponse", false, true),
  streamingInputCall: method("StreamingInputCall", "StreamingInputCallRequest", "StreamingInputCallResponse", true, false),
  fullDuplexCall: method("FullDuplexCall", "StreamingOutputCallRequest", "StreamingOutputCallResponse", true, true),
};

export const absent = {
  missing: method("UnimplementedCall", "Empty", "Empty"),
  nowhere: method("UnimplementedCall", "Empty", "Empty", false, false, "UnimplementedService"),
};
