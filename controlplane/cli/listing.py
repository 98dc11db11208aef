"""Whole lists, page by page."""

from __future__ import annotations

from controlplane.cli.client import Client
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway
from controlplane.generated.turnout.v1.gateway_service_pb2 import ListGatewaysRequest
from controlplane.generated.turnout.v1.model_pb2 import Model
from controlplane.generated.turnout.v1.model_service_pb2 import ListModelsRequest
from controlplane.generated.turnout.v1.node_pb2 import Node
from controlplane.generated.turnout.v1.node_service_pb2 import FleetSummary, ListNodesRequest
from controlplane.generated.turnout.v1.secret_pb2 import Secret
from controlplane.generated.turnout.v1.secret_service_pb2 import ListSecretsRequest
from controlplane.generated.turnout.v1.traffic_pb2 import ModelTraffic, TrafficSource
from controlplane.generated.turnout.v1.traffic_service_pb2 import ListTrafficRequest

PAGE = 1000  # the most that the server gives at once


def gateways(client: Client) -> list[Gateway]:
    """All gateways, by name."""
    found: list[Gateway] = []
    request = ListGatewaysRequest(page_size=PAGE)
    while True:
        answer = client.call(client.gateways.ListGateways, request)
        found += answer.gateways
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


def models(client: Client) -> list[Model]:
    """All models, by name."""
    found: list[Model] = []
    request = ListModelsRequest(page_size=PAGE)
    while True:
        answer = client.call(client.models.ListModels, request)
        found += answer.models
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


def secrets(client: Client) -> list[Secret]:
    """All secrets, by name."""
    found: list[Secret] = []
    request = ListSecretsRequest(page_size=PAGE)
    while True:
        answer = client.call(client.secrets.ListSecrets, request)
        found += answer.secrets
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found


def traffic(client: Client) -> tuple[list[ModelTraffic], TrafficSource]:
    """What all models get, by name, and who reported it as of the last page."""
    found: list[ModelTraffic] = []
    request = ListTrafficRequest(page_size=PAGE)
    while True:
        answer = client.call(client.traffic.ListTraffic, request)
        found += answer.traffic
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found, answer.source


def nodes(client: Client) -> tuple[list[Node], FleetSummary]:
    """All nodes, by name, and the counts as of the last page."""
    found: list[Node] = []
    request = ListNodesRequest(page_size=PAGE)
    while True:
        answer = client.call(client.nodes.ListNodes, request)
        found += answer.nodes
        request.page_token = answer.next_page_token
        if not request.page_token:
            return found, answer.summary
