"""Default models that don't exist."""

from __future__ import annotations

from dataclasses import replace

from controlplane.domain import BodyRouting, Endpoint, Gateway, Model, Version
from controlplane.domain.default_models import missing_defaults
from controlplane.domain.state import State

EDGE = Gateway("edge", 80, routing=BodyRouting(default_model="org/chat:8b"))
CHAT = Model("chat", ("edge",), (Version("v1", (Endpoint("127.0.0.1", 1),)),), {"v1": 10_000}, ("org/chat:8b",))


def test_a_default_model_is_the_key_of_a_model_of_the_gateway() -> None:
    warning = (
        "no model of gateways/edge has the key 'org/chat:8b', its default_model: until there is one, requests that name "
        "no model get an error"
    )
    assert missing_defaults(State({"edge": EDGE}, {"chat": CHAT}), [EDGE, CHAT]) == ()
    for other in (replace(CHAT, keys=()), replace(CHAT, gateways=("inner",))):
        assert missing_defaults(State({"edge": EDGE}, {"chat": other}), [EDGE, None]) == (warning,)
    # Only gateways that change, and that have a default model.
    assert missing_defaults(State({"edge": EDGE}), [CHAT, Gateway("path", 81), replace(EDGE, routing=BodyRouting())]) == ()
