"""The gRPC service for models, and for moving their traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from controlplane.api.convert import label as label_of
from controlplane.api.fields import at_fields
from controlplane.api.objects import Objects
from controlplane.api.outcomes import revision_of
from controlplane.api.probes import impact_with_probes
from controlplane.api.undos import find_undos
from controlplane.domain import Model, switch
from controlplane.domain.collections import resource_name
from controlplane.domain.revision import Action, Head
from controlplane.domain.state import Changes
from controlplane.errors import Collector, invalid
from controlplane.generated.turnout.v1 import model_service_pb2 as pb
from controlplane.generated.turnout.v1 import model_service_pb2_grpc
from controlplane.store import Store
from controlplane.writer import Writer


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Manages the models in desired state, and moves their traffic."""

    def __init__(self, writer: Writer, store: Store) -> None:
        self._store = store
        self._writer = writer
        self._objects = Objects(Model, writer, store)

    async def GetModel(self, request: pb.GetModelRequest, context: Any) -> pb.GetModelResponse:
        return pb.GetModelResponse(model=self._objects.get(request.name))

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        models, token = self._objects.page(request)
        return pb.ListModelsResponse(models=models, next_page_token=token)

    async def CreateModel(self, request: pb.CreateModelRequest, context: Any) -> pb.CreateModelResponse:
        return pb.CreateModelResponse(**await self._objects.create(request, context))

    async def UpdateModel(self, request: pb.UpdateModelRequest, context: Any) -> pb.UpdateModelResponse:
        def check(live: Model, model: Model) -> None:
            switch.check_split(live, model, request.model.etag, "model.etag", force=request.force)

        return pb.UpdateModelResponse(**await self._objects.update(request, context, check, force=request.force))

    async def DeleteModel(self, request: pb.DeleteModelRequest, context: Any) -> pb.DeleteModelResponse:
        def change(head: Head, label: str) -> Changes:
            return switch.delete(head, label, request.etag, force=request.force)

        return pb.DeleteModelResponse(**await self._objects.delete(request, context, change))

    async def SwitchTraffic(self, request: pb.SwitchTrafficRequest, context: Any) -> pb.SwitchTrafficResponse:
        labels = _labels("switches", request.switches)
        names = [resource_name(Model, label) for label in labels]

        def change(head: Head) -> Changes:
            c = Collector()
            objects: dict[str, Model | None] = {}
            for i, (label, traffic_switch) in enumerate(zip(labels, request.switches, strict=True)):
                with c.within(f"switches[{i}]"):
                    model = _switched(head, label, traffic_switch, request.force)
                    objects[model.resource_name] = model
            c.check()
            return Changes(objects)

        fields = {name: f"switches[{i}]" for i, name in enumerate(names)}
        outcome = await self._objects.write(change, request, context, Action.SWITCH, fields)
        return pb.SwitchTrafficResponse(
            revision=await revision_of(outcome),
            models=[self._objects.after(outcome, name, request.validate_only) for name in names],
            impact=await impact_with_probes(self._writer, outcome, request),
        )

    async def UndoModels(self, request: pb.UndoModelsRequest, context: Any) -> pb.UndoModelsResponse:
        labels = _labels("undos", request.undos)
        names = [resource_name(Model, label) for label in labels]
        # For a repeated request, the writer returns the first answer and does not ask for the models.
        undos = await find_undos(self._store, labels, self._store.head.value.number + 1)

        def change(head: Head) -> Changes:
            return Changes(undos.models(head, request))

        fields = {name: f"undos[{i}]" for i, name in enumerate(names)}
        outcome = await self._objects.write(change, request, context, Action.UNDO, fields, undos.target)
        assert outcome.revision is not None
        committed = await find_undos(self._store, labels, outcome.revision.number)
        return pb.UndoModelsResponse(
            revision=await revision_of(outcome),
            models=[self._objects.after(outcome, name, request.validate_only) for name in names],
            impact=await impact_with_probes(self._writer, outcome, request),
            undone=committed.messages(),
        )


def _labels(field: str, requests: Sequence[pb.TrafficSwitch | pb.ModelUndo]) -> list[str]:
    """Return the labels of the models that a list of requests names.

    Errors: INVALID_ARGUMENT at `field`, also for an empty list, and for a model that is named twice.
    """
    if not requests:
        raise invalid(field, "at least one is required")
    c = Collector()
    labels: list[str] = []
    for i, request in enumerate(requests):
        with c.within(f"{field}[{i}]"):
            label = label_of(request.model, Model, "model")
            if label in labels:
                raise invalid("model", f"{resource_name(Model, label)} is named twice", "DUPLICATE")
            labels.append(label)
    c.check()
    return labels


def _switched(head: Head, label: str, request: pb.TrafficSwitch, force: bool) -> Model:
    """Return the model with its traffic moved. Errors: those of `switch.switch`, at fields of the request."""
    match request.WhichOneof("target"):
        case "version":
            split = switch.to_version(request.version)
            fields = {f"split.{request.version}": "version"}
        case "split":
            split = dict(request.split.shares)
            fields = {"split": "split.shares"} | {f"split.{version}": f"split.shares.{version}" for version in split}
        case _:
            head.state.require(Model, label)
            raise invalid("version", "is required, or a split: one of them says where the traffic goes", "TARGET_REQUIRED")
    with at_fields(fields):
        return switch.switch(head, label, split, request.etag, force=force)
