"""Models over gRPC, and the switch of their traffic."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from controlplane.api.convert import label, model_from_proto, model_to_proto
from controlplane.api.masks import updated, updated_fields
from controlplane.api.request import (
    check_etag,
    check_new,
    draft,
    impact_to_proto,
    kept_of,
    moves_traffic,
    named,
    number_of,
    page,
    shown,
)
from controlplane.domain import FULL_SHARE, Model
from controlplane.domain.revision import Action, Head
from controlplane.domain.state import Changes
from controlplane.errors import Code, Collector, Error, Violation, failed, invalid, within
from controlplane.generated.turnout.v1 import model_pb2, model_service_pb2_grpc
from controlplane.generated.turnout.v1 import model_service_pb2 as pb
from controlplane.store import Store
from controlplane.writer import Outcome, Writer


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Keeps the models of desired state."""

    def __init__(self, writer: Writer, store: Store) -> None:
        self._writer = writer
        self._store = store

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        head = self._store.head.value
        model = head.state.model(label(request.name, "models", "name"))
        return pb.GetModelResponse(model=model_to_proto(model, head.kept[model.resource_name]))

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        head = self._store.head.value
        models, token = page(
            head.state.models, lambda n: model_to_proto(head.state.models[n], head.kept[f"models/{n}"]), request, "models"
        )
        return pb.ListModelsResponse(models=models, next_page_token=token)

    async def CreateModel(self, request: pb.CreateModelRequest, context: Any) -> pb.CreateModelResponse:
        with within("model"):
            check_new(request.model.etag)
            model = model_from_proto(request.model)
        name = model.resource_name

        def change(head: Head) -> Changes:
            if model.name in head.state.models:
                raise Error(Code.ALREADY_EXISTS, "ALREADY_EXISTS", f"{name} exists already", metadata={"name": name})
            return Changes({name: model})

        with named({name: "model"}):
            outcome = await self._writer.write(
                change, draft(request, context, Action.CREATE), validate_only=request.validate_only
            )
        return pb.CreateModelResponse(
            model=_shown(outcome, model.name, request.validate_only), revision=number_of(outcome, request.validate_only)
        )

    async def UpdateModel(self, request: pb.UpdateModelRequest, context: Any) -> pb.UpdateModelResponse:
        short = label(request.model.name, "models", "model.name")
        name = f"models/{short}"

        def change(head: Head) -> Changes:
            live = head.state.model(short)
            check_etag(name, request.model.etag, head.kept.get(name), "model.etag", request.force)
            proto = updated(model_to_proto(live), request.model, request.update_mask)
            if "split" not in updated_fields(request.model, request.update_mask):
                proto.ClearField("split")  # the live one is looked at as what it is, and not as one that was sent
            with within("model"):
                model = model_from_proto(proto, live)
            if model.split != live.split and not request.model.etag and not request.force:
                raise moves_traffic(name, "model.etag", "the split is another than the live one")
            return Changes({name: model})

        with named({name: "model"}):
            outcome = await self._writer.write(
                change, draft(request, context, Action.UPDATE), validate_only=request.validate_only
            )
        return pb.UpdateModelResponse(
            model=_shown(outcome, short, request.validate_only), revision=number_of(outcome, request.validate_only)
        )

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Any) -> pb.DeleteModelResponse:
        short = label(request.name, "models", "name")
        name = f"models/{short}"

        def change(head: Head) -> Changes:
            head.state.model(short)
            check_etag(name, request.etag, head.kept.get(name), "etag", request.force)
            if not request.etag and not request.force:
                raise moves_traffic(name, "etag", "its requests would be answered 404")
            return Changes({name: None})

        outcome = await self._writer.write(change, draft(request, context, Action.DELETE), validate_only=request.validate_only)
        return pb.DeleteModelResponse(revision=number_of(outcome, request.validate_only))

    async def SwitchTraffic(self, request: pb.SwitchTrafficRequest, context: Any) -> pb.SwitchTrafficResponse:
        if not request.switches:
            raise invalid("switches", "at least one is required")
        shorts = _labels(request)
        fields = {f"models/{n}": f"switches[{i}]" for i, n in enumerate(shorts)}

        def change(head: Head) -> Changes:
            c = Collector()
            objects: dict[str, Model | None] = {}
            for i, (short, switch) in enumerate(zip(shorts, request.switches, strict=True)):
                with c.within(f"switches[{i}]"):
                    model = _switched(head, short, switch, request.force)
                    objects[model.resource_name] = model
            c.check()
            return Changes(objects)

        with named(fields):
            outcome = await self._writer.write(
                change, draft(request, context, Action.SWITCH), validate_only=request.validate_only
            )
        return pb.SwitchTrafficResponse(
            revision=await shown(outcome),
            models=[_shown(outcome, n, request.validate_only) for n in shorts],
            impact=impact_to_proto(outcome.impact),
        )


def _shown(outcome: Outcome, short: str, validate_only: bool) -> model_pb2.Model:
    model = outcome.head.state.models[short]
    return model_to_proto(model, kept_of(outcome, model.resource_name, validate_only))


def _labels(request: pb.SwitchTrafficRequest) -> list[str]:
    """The models' labels, none twice."""
    c = Collector()
    shorts: list[str] = []
    for i, switch in enumerate(request.switches):
        with c.within(f"switches[{i}]"):
            short = label(switch.model, "models", "model")
            if short in shorts:
                raise invalid("model", f"models/{short} is named twice", "DUPLICATE")
            shorts.append(short)
    c.check()
    return shorts


def _switched(head: Head, short: str, switch: pb.TrafficSwitch, force: bool) -> Model:
    """The model with its traffic moved."""
    try:
        live = head.state.model(short)
    except Error as error:
        violation = Violation("model", error.message)
        raise Error(error.code, error.reason, error.message, violations=(violation,), metadata=error.metadata) from None
    name = live.resource_name
    match switch.WhichOneof("target"):
        case "version":
            shares: Mapping[str, int] = {switch.version: FULL_SHARE}
            fields = {switch.version: "version"}
        case "split":
            shares = dict(switch.split.shares)
            fields = {v: f"split.shares.{v}" for v in shares}
        case _:
            raise invalid("version", "is required, or a split: where the traffic goes", "TARGET_REQUIRED")
    for version, share in shares.items():
        if share and not live.version(version, fields[version]).endpoints:
            said = f"version '{version}' of {name} has no endpoints, so it can't be given a share"
            raise failed("NO_ENDPOINTS", fields[version], said, name=name)
    check_etag(name, switch.etag, head.kept.get(name), "etag", force)
    if not switch.etag and not force:
        raise moves_traffic(name, "etag", "it moves live traffic")
    try:
        return replace(live, split=shares)
    except Error as error:
        violations = tuple(Violation(_share_field(v.field, fields), v.description) for v in error.violations)
        message = "; ".join(f"{v.field}: {v.description}" for v in violations)
        raise Error(error.code, error.reason, message, violations=violations) from None


def _share_field(field: str, fields: Mapping[str, str]) -> str:
    """`split.blue` of a model is `split.shares.blue` of a switch."""
    return "split.shares" if field == "split" else fields.get(field.removeprefix("split."), field)
