"""gRPC of the Open Inference Protocol at body gateways: the model's name is in the first message of the request.

The path of such a call names the method only, like `/inference.GRPCInferenceService/ModelInfer`. Envoy's filter
`grpc_field_extraction` reads the name from the message and writes it to the dynamic metadata. It holds the call back until the
first message is complete. So a stream of requests (`ModelStreamInfer`) goes to the model of its first message.

The script of the gateway (`body_script.py`) gets the name in a header, as a list in JSON: `["iris"]`. It can't read the
metadata itself, because Envoy 1.36 crashes when a script reads the value of a field that the message lacks.

The filter needs descriptors of the methods. They are made here and have the one field that the filter reads. Protobuf ignores
the fields of a message that its descriptor lacks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from envoy.config.core.v3 import base_pb2
from envoy.extensions.filters.http.grpc_field_extraction.v3 import config_pb2
from envoy.extensions.filters.http.header_mutation.v3 import header_mutation_pb2
from google.protobuf import descriptor_pb2

from controlplane.compiler.message import packed

FILTER = "envoy.filters.http.grpc_field_extraction"

SERVICE = "inference.GRPCInferenceService"

# The field of the request that names the model, with its number, by method. Triton, MLServer and KServe agree on these.
_NAME_FIELDS: Mapping[str, tuple[str, int]] = {
    "ModelConfig": ("name", 1),
    "ModelInfer": ("model_name", 1),
    "ModelMetadata": ("name", 1),
    "ModelReady": ("name", 1),
    "ModelStatistics": ("name", 1),
    "ModelStreamInfer": ("model_name", 1),
}
_STREAMS = frozenset({"ModelStreamInfer"})

# The keys in the metadata of the filter. A request has one of them, with a list of one name.
_FIELDS = sorted({field for field, _ in _NAME_FIELDS.values()})

# The header in which the script gets that list, as JSON.
HEADER = "x-turnout-grpc-model"


def name_filter(manager: Any) -> None:
    """Add the filter that reads names of models from gRPC messages to a connection manager."""
    config = config_pb2.GrpcFieldExtractionConfig()
    config.descriptor_set.inline_bytes = _descriptors().SerializeToString(deterministic=True)
    for method, (field, _) in _NAME_FIELDS.items():
        config.extractions_by_method[f"{SERVICE}.{method}"].request_field_extractions[field].SetInParent()
    manager.http_filters.add(name=FILTER, typed_config=packed(config))
    header = header_mutation_pb2.HeaderMutation()
    header.mutations.request_mutations.add(remove=HEADER)
    for field in _FIELDS:
        option = header.mutations.request_mutations.add().append
        option.header.key, option.header.value = HEADER, f"%DYNAMIC_METADATA({FILTER}:{field})%"
        option.append_action = base_pb2.HeaderValueOption.ADD_IF_ABSENT
    manager.http_filters.add(name="envoy.filters.http.header_mutation", typed_config=packed(header))


def _descriptors() -> Any:
    package, service_name = SERVICE.split(".")
    file = descriptor_pb2.FileDescriptorProto(name="open_inference.proto", package=package, syntax="proto3")
    file.message_type.add(name="Response")
    service = file.service.add(name=service_name)
    for method, (field, number) in _NAME_FIELDS.items():
        message = file.message_type.add(name=f"{method}Request")
        message.field.add(
            name=field,
            number=number,
            type=descriptor_pb2.FieldDescriptorProto.TYPE_STRING,
            label=descriptor_pb2.FieldDescriptorProto.LABEL_OPTIONAL,
        )
        streams = method in _STREAMS
        service.method.add(
            name=method,
            input_type=f".{package}.{message.name}",
            output_type=f".{package}.Response",
            client_streaming=streams,
            server_streaming=streams,
        )
    return descriptor_pb2.FileDescriptorSet(file=[file])
