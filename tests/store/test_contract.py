"""Each store has every member of the contract, with the same parameters. `contract.py` tests what the members do."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from controlplane.store import History, Leases, Records, Store, WithdrawnKeys
from tests.store.opening import open_store


def members(protocol: type) -> dict[str, object]:
    """Return the public members of a protocol by name, those of its bases too."""
    return {name: member for name, member in inspect.getmembers(protocol) if not name.startswith("_")}


@pytest.mark.parametrize("protocol", [History, Records, Leases, WithdrawnKeys, Store])
def test_every_member_is_described(protocol: type) -> None:
    assert members(protocol)
    assert [name for name, member in members(protocol).items() if not inspect.getdoc(member)] == []


def test_the_contract_of_a_store_has_all_three_parts() -> None:
    assert members(History).keys() < members(Store).keys()
    assert members(Store).keys() - members(History).keys() == {*("history_id", "records", "leases", "withdrawn_keys", "close")}


async def test_sqlite_has_every_member_with_the_same_parameters(tmp_path: Path) -> None:
    store = await open_store(tmp_path)
    for protocol, part in ((Store, store), (Records, store.records), (Leases, store.leases)):
        for name, member in members(protocol).items():
            ours = getattr(part, name)
            if inspect.isfunction(member):
                expected = [p.replace(annotation="") for p in inspect.signature(member).parameters.values()][1:]
                assert [p.replace(annotation="") for p in inspect.signature(ours).parameters.values()] == expected, name
    await store.close()
