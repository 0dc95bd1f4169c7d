// demo.v1.Greeter, the service of the demo backend, described by hand.

import { create, createFileRegistry } from "@bufbuild/protobuf";
import {
  FieldDescriptorProto_Label as Label,
  FieldDescriptorProto_Type as Type,
  FileDescriptorSetSchema,
} from "@bufbuild/protobuf/wkt";

const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
const field = (name, number, type) => ({ name, number, type, label: Label.OPTIONAL, jsonName: camel(name) });

const registry = createFileRegistry(create(FileDescriptorSetSchema, {
  file: [{
    name: "demo/v1/greeter.proto",
    package: "demo.v1",
    syntax: "proto3",
    messageType: [
      { name: "HelloRequest", field: [field("name", 1, Type.STRING)] },
      { name: "HelloReply", field: [field("message", 1, Type.STRING), field("user", 2, Type.STRING)] },
      {
        name: "CountdownRequest",
        field: [field("from", 1, Type.UINT32), field("pause_ms", 2, Type.UINT32), field("abort_at", 3, Type.UINT32)],
      },
      { name: "CountdownReply", field: [field("left", 1, Type.UINT32)] },
    ],
    service: [{
      name: "Greeter",
      method: [
        { name: "SayHello", inputType: ".demo.v1.HelloRequest", outputType: ".demo.v1.HelloReply" },
        { name: "Countdown", inputType: ".demo.v1.CountdownRequest", outputType: ".demo.v1.CountdownReply", serverStreaming: true },
        { name: "Missing", inputType: ".demo.v1.HelloRequest", outputType: ".demo.v1.HelloReply" },
      ],
    }],
  }],
}));

export const Greeter = registry.getService("demo.v1.Greeter");
