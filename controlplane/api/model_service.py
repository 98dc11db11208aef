"""Models over gRPC, and the switch of their traffic."""

from __future__ import annotations

from typing import Any

from controlplane.api.convert import label, model_from_proto, model_to_proto
from controlplane.api.masks import updated, updated_fields
from controlplane.api.request import (
    check_new,
    draft,
    impact_to_proto,
    meta_of,
    named,
    number_of,
    page,
    renamed,
    shown,
)
from controlplane.domain import Model, switch
from controlplane.domain.collections import resource_name
from controlplane.domain.etag import check_etag
from controlplane.domain.revision import Action, Head
from controlplane.domain.state import Changes
from controlplane.errors import Code, Collector, Error, invalid, within
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
        model = head.state.require(Model, label(request.name, Model, "name"))
        return pb.GetModelResponse(model=model_to_proto(model, head.meta[model.resource_name]))

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        head = self._store.head.value
        models, token = page(
            head.state.models,
            lambda n: model_to_proto(head.state.models[n], head.meta[resource_name(Model, n)]),
            request,
            "models",
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
        short = label(request.model.name, Model, "model.name")
        name = resource_name(Model, short)

        def change(head: Head) -> Changes:
            live = head.state.require(Model, short)
            check_etag(head, name, request.model.etag, "model.etag", force=request.force)
            proto = updated(model_to_proto(live), request.model, request.update_mask)
            if "split" not in updated_fields(request.model, request.update_mask):
                proto.ClearField("split")  # the live one is looked at as what it is, and not as one that was sent
            with within("model"):
                model = model_from_proto(proto, live)
            switch.check_split(live, model, request.model.etag, "model.etag", force=request.force)
            return Changes({name: model})

        with named({name: "model"}):
            outcome = await self._writer.write(
                change, draft(request, context, Action.UPDATE), validate_only=request.validate_only
            )
        return pb.UpdateModelResponse(
            model=_shown(outcome, short, request.validate_only), revision=number_of(outcome, request.validate_only)
        )

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Any) -> pb.DeleteModelResponse:
        short = label(request.name, Model, "name")

        def change(head: Head) -> Changes:
            return switch.delete(head, short, request.etag, force=request.force)

        outcome = await self._writer.write(change, draft(request, context, Action.DELETE), validate_only=request.validate_only)
        return pb.DeleteModelResponse(revision=number_of(outcome, request.validate_only))

    async def SwitchTraffic(self, request: pb.SwitchTrafficRequest, context: Any) -> pb.SwitchTrafficResponse:
        if not request.switches:
            raise invalid("switches", "at least one is required")
        shorts = _labels(request)
        fields = {resource_name(Model, n): f"switches[{i}]" for i, n in enumerate(shorts)}

        def change(head: Head) -> Changes:
            c = Collector()
            objects: dict[str, Model | None] = {}
            for i, (short, move) in enumerate(zip(shorts, request.switches, strict=True)):
                with c.within(f"switches[{i}]"):
                    model = _switched(head, short, move, request.force)
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
    return model_to_proto(model, meta_of(outcome, model.resource_name, validate_only))


def _labels(request: pb.SwitchTrafficRequest) -> list[str]:
    """The models' labels, none twice."""
    c = Collector()
    shorts: list[str] = []
    for i, move in enumerate(request.switches):
        with c.within(f"switches[{i}]"):
            short = label(move.model, Model, "model")
            if short in shorts:
                raise invalid("model", f"{resource_name(Model, short)} is named twice", "DUPLICATE")
            shorts.append(short)
    c.check()
    return shorts


def _switched(head: Head, short: str, request: pb.TrafficSwitch, force: bool) -> Model:
    """Return the model with its traffic moved. Errors: `switch.switch`'s, at fields of the request."""
    match request.WhichOneof("target"):
        case "version":
            split = switch.to_version(request.version)
            fields = {f"split.{request.version}": "version"}
        case "split":
            split = dict(request.split.shares)
            fields = {"split": "split.shares"} | {f"split.{version}": f"split.shares.{version}" for version in split}
        case _:
            head.state.require(Model, short)
            raise invalid("version", "is required, or a split: where the traffic goes", "TARGET_REQUIRED")
    with renamed(fields):
        return switch.switch(head, short, split, request.etag, force=force)
