"""The prober: what is probed, and within which bounds."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import pytest

from controlplane.domain import Endpoint
from controlplane.probe import Answer, EndpointProbe, Prober
from controlplane.probe.resolve import Resolver
from tests.probe.servers import closed_port, server, silent, target


async def test_endpoints_that_answer_and_that_do_not() -> None:
    closed = closed_port()
    async with server(silent) as port:
        (result,) = await Prober(local=True).probe([target(port, closed)])
    assert (result.model, result.version, result.total, result.probed, result.answering) == ("iris", "green", 2, 2, 1)
    assert result.failures == (EndpointProbe(f"127.0.0.1:{closed}", Answer.NO, "connection refused"),)
    assert not result.dead


async def test_the_grpc_port_of_an_endpoint_must_accept_connections() -> None:
    closed = closed_port()
    async with server(silent) as port:
        green = target(port)
        for grpc_port, failures in (
            (port, ()),
            (closed, (EndpointProbe(f"127.0.0.1:{port}", Answer.NO, f"gRPC port {closed}: connection refused"),)),
        ):
            endpoint = Endpoint("127.0.0.1", port, grpc_port=grpc_port)
            version = replace(green.version, endpoints=(endpoint,))
            (result,) = await Prober(local=True).probe([replace(green, version=version)])
            assert result.failures == failures


async def test_a_version_of_which_no_endpoint_answers_is_dead() -> None:
    (result,) = await Prober(local=True).probe([target(closed_port())])
    assert result.dead


async def test_a_call_ends_in_time_however_many_endpoints_do_not_answer() -> None:
    async with server(silent) as port:
        targets = [replace(target(port, path="/ready"), model=f"m{i}") for i in range(300)]
        start = time.monotonic()
        results = await Prober(local=True, time_limit=0.3).probe(targets)
        assert time.monotonic() - start < 3
    assert len(results) == 300
    assert results[0].endpoints[0] == EndpointProbe(f"127.0.0.1:{port}", Answer.NO, "no answer within 0.3 s")
    assert sum(r.dead for r in results) <= 128  # connections at a time
    assert results[200].endpoints[0].answer is Answer.UNKNOWN
    # At most 256 endpoints are probed in a call.
    assert results[-1].endpoints == ()
    assert not results[-1].dead


async def test_a_sample_of_many_endpoints() -> None:
    many = target(1)
    version = replace(many.version, endpoints=tuple(Endpoint("127.0.0.1", port) for port in range(1, 1001)))
    (result,) = await Prober(local=False).probe([replace(many, version=version)])
    addresses = [e.address for e in result.endpoints]
    assert (result.total, len(addresses), addresses[0], addresses[-1]) == (1000, 32, "127.0.0.1:1", "127.0.0.1:969")
    assert result.probed == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::ffff:127.0.0.1", "0.0.0.0"])
async def test_loopback_is_not_probed_if_the_server_can_be_reached_from_elsewhere(host: str) -> None:
    async with server(silent) as port:
        (result,) = await Prober(local=False).probe([target(port, host=host)])
    assert result.endpoints[0].answer is Answer.UNKNOWN
    assert result.endpoints[0].reason == "not probed: a loopback address"


async def test_names_that_resolve_to_loopback_or_not_at_all() -> None:
    async with server(silent) as port:
        (result,) = await Prober(local=False).probe([target(port, host="localhost")])
        assert result.endpoints[0].answer is Answer.UNKNOWN
        (result,) = await Prober(local=True).probe([target(port, host="localhost")])
        assert result.answering == 1
    (result,) = await Prober(local=True, time_limit=10).probe([target(80, host="green.invalid")])
    assert result.failures == (EndpointProbe("green.invalid:80", Answer.NO, "the name does not resolve"),)


async def test_a_name_server_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    async def hang(self: Resolver, name: str) -> list[str]:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(Resolver, "resolve", hang)
    (result,) = await Prober(local=True, time_limit=0.05).probe([target(80, host="green.test")])
    assert result.failures[0].reason == "no answer within 0.05 s"


async def test_a_prober_that_is_off_connects_to_nothing() -> None:
    async with server(silent) as port:
        assert await Prober(enabled=False, local=True).probe([target(port)]) == []
