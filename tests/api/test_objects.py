"""The standard methods, on a writer that applies each change to a head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from controlplane.api.objects import Objects
from controlplane.compiler.impact import NO_IMPACT
from controlplane.domain import Gateway, Model
from controlplane.domain.cuts import NO_CUT, CutPermit
from controlplane.domain.revision import Action, Draft, Head, Revision
from controlplane.domain.state import Changes
from controlplane.errors import Code, Error, failed_precondition
from controlplane.generated.turnout.v1 import gateway_service_pb2 as gpb
from controlplane.generated.turnout.v1 import model_pb2
from controlplane.generated.turnout.v1 import model_service_pb2 as mpb
from controlplane.writer import Change, Outcome
from tests.api.api import gateway, model
from tests.store.opening import HISTORY, etag


class Call:
    """The part of a gRPC call that is read."""

    def invocation_metadata(self) -> Any:
        return (("x-turnout-author", "ann"),)

    def peer(self) -> str:
        return "ipv4:10.0.0.1:5000"


class Applying:
    """A store and a writer in one: it applies each change to its head, without compiling."""

    def __init__(self) -> None:
        self.value = Head(history=HISTORY)
        self.drafts: list[Draft] = []

    @property
    def head(self) -> Applying:
        return self

    async def write(
        self,
        change: Change,
        draft: Draft,
        *,
        permit: CutPermit = NO_CUT,
        probe: bool = True,
        validate_only: bool = False,
    ) -> Outcome:
        wanted = change(self.value).objects
        changes = Changes({n: o for n, o in wanted.items() if o != self.value.state.get(n)})
        draft = replace(draft, time=100.0)
        self.drafts.append(draft)
        after = self.value.after(changes, draft)
        pairs = {name: (self.value.state.get(name), obj) for name, obj in changes.objects.items()}
        if not validate_only:
            self.value = after
        return Outcome(after, Revision(after.number, draft, pairs), True, NO_IMPACT, {})


def objects(noun: type[Gateway | Model], store: Applying) -> Objects:
    writer: Any = store
    return Objects(noun, writer, writer)


@pytest.fixture
def store() -> Applying:
    return Applying()


@pytest.fixture
def gateways(store: Applying) -> Objects:
    return objects(Gateway, store)


async def refused(call: Any) -> tuple[Code, list[str]]:
    with pytest.raises(Error) as caught:
        await call
    return caught.value.code, [v.field for v in caught.value.violations]


async def test_create_and_get(store: Applying, gateways: Objects) -> None:
    fields = await gateways.create(gpb.CreateGatewayRequest(gateway=gateway(), reason="first"), Call())
    assert (fields["revision"], fields["gateway"].etag) == (1, etag(1))
    assert gateways.get("edge") == gateways.get("gateways/edge") == fields["gateway"]
    assert [(d.author, d.reason, d.action) for d in store.drafts] == [("ann", "first", Action.CREATE)]
    with pytest.raises(Error) as caught:
        gateways.get("none")
    assert caught.value.code is Code.NOT_FOUND


async def test_create_refuses_an_etag_and_a_name_that_exists(gateways: Objects) -> None:
    await gateways.create(gpb.CreateGatewayRequest(gateway=gateway()), Call())
    again = gateways.create(gpb.CreateGatewayRequest(gateway=gateway(port=81)), Call())
    assert await refused(again) == (Code.ALREADY_EXISTS, [])
    read = gateways.create(gpb.CreateGatewayRequest(gateway=gateway("other", etag=etag(1))), Call())
    assert await refused(read) == (Code.INVALID_ARGUMENT, ["gateway.etag"])
    invalid = gateways.create(gpb.CreateGatewayRequest(gateway=gateway("other", 0)), Call())
    assert await refused(invalid) == (Code.INVALID_ARGUMENT, ["gateway.port"])


async def test_validate_only_changes_nothing_and_gives_no_etag(store: Applying, gateways: Objects) -> None:
    fields = await gateways.create(gpb.CreateGatewayRequest(gateway=gateway(), validate_only=True), Call())
    assert (fields["revision"], fields["gateway"].etag, store.value.number) == (0, "", 0)


async def test_pages_are_sorted_by_name(gateways: Objects) -> None:
    for name in ("b", "a"):
        await gateways.create(gpb.CreateGatewayRequest(gateway=gateway(name)), Call())
    first, token = gateways.page(gpb.ListGatewaysRequest(page_size=1))
    second, end = gateways.page(gpb.ListGatewaysRequest(page_size=1, page_token=token))
    assert [(g.name, g.etag) for g in (*first, *second)] == [("gateways/a", etag(2)), ("gateways/b", etag(1))]
    assert end == ""


async def test_update_compares_the_etag_and_takes_the_masked_fields(gateways: Objects) -> None:
    await gateways.create(gpb.CreateGatewayRequest(gateway=gateway()), Call())
    sent = gateway(port=81, address="10.0.0.1", etag=etag(1))
    request = gpb.UpdateGatewayRequest(gateway=sent, update_mask=FieldMask(paths=["port"]))
    fields = await gateways.update(request, Call())
    assert (fields["revision"], fields["gateway"].port, fields["gateway"].address) == (2, 81, "0.0.0.0")
    assert await refused(gateways.update(request, Call())) == (Code.ABORTED, [])
    assert (await gateways.update(request, Call(), force=True))["gateway"].port == 81
    unknown = gpb.UpdateGatewayRequest(gateway=gateway("none"))
    assert (await refused(gateways.update(unknown, Call())))[0] is Code.NOT_FOUND
    invalid = gpb.UpdateGatewayRequest(gateway=gateway(port=70_000))
    assert await refused(gateways.update(invalid, Call())) == (Code.INVALID_ARGUMENT, ["gateway.port"])


async def test_a_check_of_an_update_gets_the_live_and_the_new_object(gateways: Objects) -> None:
    await gateways.create(gpb.CreateGatewayRequest(gateway=gateway()), Call())

    def check(live: Gateway, new: Gateway) -> None:
        assert (live.port, new.port) == (8080, 81)
        raise failed_precondition("NO", "gateway.port", "no")

    request = gpb.UpdateGatewayRequest(gateway=gateway(port=81))
    assert await refused(gateways.update(request, Call(), check)) == (Code.FAILED_PRECONDITION, ["gateway.port"])


async def test_a_field_that_is_kept_if_unset_is_not_an_error_of_the_request(store: Applying) -> None:
    await objects(Gateway, store).create(gpb.CreateGatewayRequest(gateway=gateway()), Call())
    models = objects(Model, store)
    await models.create(mpb.CreateModelRequest(model=model(split={"blue": 10_000})), Call())
    without_blue = model_pb2.Model(name="iris", versions=[v for v in model().versions if v.name != "blue"])
    with pytest.raises(Error) as caught:
        await models.update(mpb.UpdateModelRequest(model=without_blue), Call())
    assert (caught.value.reason, caught.value.violations[0].field) == ("VERSION_HAS_SHARE", "model.versions")


async def test_delete(store: Applying, gateways: Objects) -> None:
    await gateways.create(gpb.CreateGatewayRequest(gateway=gateway()), Call())
    assert await refused(gateways.delete(gpb.DeleteGatewayRequest(name="edge", etag=etag(7)), Call())) == (Code.ABORTED, [])
    missing = gateways.delete(gpb.DeleteGatewayRequest(name="none"), Call())
    assert (await refused(missing))[0] is Code.NOT_FOUND
    deleted = await gateways.delete(gpb.DeleteGatewayRequest(name="edge", etag=etag(1)), Call())
    assert deleted["revision"] == 2
    assert not store.value.state.gateways


async def test_delete_with_a_change_of_the_service(store: Applying, gateways: Objects) -> None:
    await gateways.create(gpb.CreateGatewayRequest(gateway=gateway()), Call())

    def change(head: Head, label: str) -> Changes:
        assert (head, label) == (store.value, "edge")
        raise failed_precondition("NO", "gateways/edge.port", "no")

    call = gateways.delete(gpb.DeleteGatewayRequest(name="edge"), Call(), change)
    assert await refused(call) == (Code.FAILED_PRECONDITION, ["name.port"])
