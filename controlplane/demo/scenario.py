"""The demo's desired state and its load, as values."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from controlplane.demo import models
from controlplane.demo.load import VERSION_HEADER, Group
from controlplane.demo.receipt import STREAMS
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway, NodeSelector
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Model, Sticky, Version
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest

PATH = f"/v2/models/{models.NAME}"
# Header by which a request picks a version, whatever the split.
PREVIEW_HEADER = VERSION_HEADER
USER_HEADER = "x-user"
# Requests a second of all users together. Two cores can serve more.
_RATE = 600.0
# Answers that stream at the same time through each Envoy.
STREAMS_PER_ENVOY = 4


def manifest(gateway_ports: Mapping[str, int], version_ports: Mapping[str, int]) -> Manifest:
    """Return a gateway for each node, and the model with all traffic on its first version.

    `gateway_ports` has a port for each node, whose gateway has the node's name. `version_ports` has the port of each
    version's server.
    """
    gateways = [
        Gateway(name=node, address="127.0.0.1", port=port, nodes=NodeSelector(ids=[node]))
        for node, port in gateway_ports.items()
    ]
    versions = [Version(name=name, endpoints=[Endpoint(host="127.0.0.1", port=port)]) for name, port in version_ports.items()]
    model = Model(
        name=models.NAME,
        gateways=list(gateway_ports),
        versions=versions,
        sticky=Sticky(header=USER_HEADER),
        preview_header=PREVIEW_HEADER,
    )
    return Manifest(gateways=gateways, models=[model])


def load_groups(gateway_ports: Mapping[str, int], body: Mapping[str, Any], stream_seconds: float) -> list[Group]:
    """Return the load: half of the users send HTTP/1.1, half HTTP/2, and some read answers that stream for seconds."""
    text = json.dumps(body)
    rate = _RATE / len(gateway_ports) / 2
    # A little below the possible rate, so that the streams begin at different times and some are always half-way.
    stream_rate = STREAMS_PER_ENVOY / (1.1 * stream_seconds)
    infer, stream = f"{PATH}/infer", f"{PATH}/stream?seconds={stream_seconds:g}"
    groups = []
    for port in gateway_ports.values():
        groups += [
            Group("127.0.0.1", port, infer, name="http1", body=text, connections=8, rate=rate, user_header=USER_HEADER),
            Group(
                "127.0.0.1",
                port,
                infer,
                name="http2",
                body=text,
                http2=True,
                connections=1,
                slots=8,
                rate=rate,
                user_header=USER_HEADER,
            ),
            Group(
                "127.0.0.1",
                port,
                stream,
                name=STREAMS,
                body="{}",
                connections=STREAMS_PER_ENVOY,
                rate=stream_rate,
                user_header=USER_HEADER,
            ),
        ]
    return groups
