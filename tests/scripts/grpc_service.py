"""A gRPC service with one method, over protobuf's own messages; the scripts of this folder import it."""
from concurrent import futures

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

F = descriptor_pb2.FieldDescriptorProto
KINDS = {"string": F.TYPE_STRING, "bytes": F.TYPE_BYTES, "int32": F.TYPE_INT32, "int64": F.TYPE_INT64,
         "uint32": F.TYPE_UINT32, "bool": F.TYPE_BOOL}


def message_classes(package, messages, wanted):
    """The classes of the messages `wanted`.

    `messages` has the fields of each message as "NAME NUMBER TYPE"; a `*` behind the number means repeated.
    """
    file = descriptor_pb2.FileDescriptorProto(name=f"{package}.proto", package=package, syntax="proto3")
    for name, fields in messages.items():
        message = file.message_type.add(name=name)
        for text in fields:
            name, number, kind = text.split()
            field = message.field.add(name=name, number=int(number.rstrip("*")))
            field.label = F.LABEL_REPEATED if number.endswith("*") else F.LABEL_OPTIONAL
            field.type = KINDS.get(kind, F.TYPE_MESSAGE)
            if kind not in KINDS:
                field.type_name = f".{package}.{kind}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    found = [pool.FindMessageTypeByName(f"{package}.{name}") for name in wanted]
    if hasattr(message_factory, "GetMessageClass"):
        return [message_factory.GetMessageClass(one) for one in found]
    return [message_factory.MessageFactory(pool).GetPrototype(one) for one in found]


def serve(address, service, method, answer, request, response):
    """Serves `service/method` until the program is killed: `answer(request, context)` makes the response."""
    handler = grpc.unary_unary_rpc_method_handler(
        answer, request_deserializer=request.FromString, response_serializer=response.SerializeToString
    )
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()
