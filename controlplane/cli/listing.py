"""Complete lists from the API, which returns them in pages."""

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

# Objects that one call returns at most.
PAGE = 1000


def gateways(client: Client) -> list[Gateway]:
    """Return all gateways, by name."""
    all_gateways: list[Gateway] = []
    request = ListGatewaysRequest(page_size=PAGE)
    while True:
        answer = client.call(client.gateways.ListGateways, request)
        all_gateways += answer.gateways
        request.page_token = answer.next_page_token
        if not request.page_token:
            return all_gateways


def models(client: Client) -> list[Model]:
    """Return all models, by name."""
    all_models: list[Model] = []
    request = ListModelsRequest(page_size=PAGE)
    while True:
        answer = client.call(client.models.ListModels, request)
        all_models += answer.models
        request.page_token = answer.next_page_token
        if not request.page_token:
            return all_models


def secrets(client: Client) -> list[Secret]:
    """Return all secrets, by name."""
    all_secrets: list[Secret] = []
    request = ListSecretsRequest(page_size=PAGE)
    while True:
        answer = client.call(client.secrets.ListSecrets, request)
        all_secrets += answer.secrets
        request.page_token = answer.next_page_token
        if not request.page_token:
            return all_secrets


def traffic(client: Client) -> tuple[list[ModelTraffic], TrafficSource]:
    """Return the traffic of all models, by name, and its source as of the last page."""
    models_traffic: list[ModelTraffic] = []
    request = ListTrafficRequest(page_size=PAGE)
    while True:
        answer = client.call(client.traffic.ListTraffic, request)
        models_traffic += answer.traffic
        request.page_token = answer.next_page_token
        if not request.page_token:
            return models_traffic, answer.source


def nodes(client: Client) -> tuple[list[Node], FleetSummary]:
    """Return all nodes, by name, and the fleet's counts as of the last page."""
    all_nodes: list[Node] = []
    request = ListNodesRequest(page_size=PAGE)
    while True:
        answer = client.call(client.nodes.ListNodes, request)
        all_nodes += answer.nodes
        request.page_token = answer.next_page_token
        if not request.page_token:
            return all_nodes, answer.summary
