"""Complete lists from the API, which returns them in pages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol, TypeVar

import grpc

from controlplane import domain
from controlplane.cli import objects
from controlplane.cli.client import Client
from controlplane.domain.collections import BY_NOUN
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.node_pb2 import Node
from controlplane.generated.turnout.v1.node_service_pb2 import FleetSummary, ListNodesRequest
from controlplane.generated.turnout.v1.traffic_pb2 import ModelTraffic, TrafficSource
from controlplane.generated.turnout.v1.traffic_service_pb2 import ListTrafficRequest


class _Request(Protocol):
    page_token: str


class _Page(Protocol):
    @property
    def next_page_token(self) -> str: ...


_RequestT = TypeVar("_RequestT", bound=_Request)
_PageT = TypeVar("_PageT", bound=_Page)


def models(client: Client) -> list[Model]:
    """Return all models, by name."""
    return objects.list_all(client, BY_NOUN[domain.Model])


def traffic(client: Client) -> tuple[list[ModelTraffic], TrafficSource]:
    """Return the traffic of all models, by name, and its source from the last page."""
    pages = list(_pages(client, client.traffic.ListTraffic, ListTrafficRequest(page_size=objects.PAGE)))
    return [one for page in pages for one in page.traffic], pages[-1].source


def nodes(client: Client) -> tuple[list[Node], FleetSummary]:
    """Return all nodes, by name, and the fleet's counts from the last page."""
    pages = list(_pages(client, client.nodes.ListNodes, ListNodesRequest(page_size=objects.PAGE)))
    return [node for page in pages for node in page.nodes], pages[-1].summary


def _pages(client: Client, rpc: grpc.UnaryUnaryMultiCallable[_RequestT, _PageT], request: _RequestT) -> Iterator[_PageT]:
    """Yield all pages of a list; at least one."""
    while True:
        page = client.call(rpc, request)
        yield page
        request.page_token = page.next_page_token
        if not request.page_token:
            return
