"""Rules of what an identity may claim."""

from __future__ import annotations

import pytest
import yaml
from envoy.config.core.v3 import base_pb2

from controlplane.errors import Error
from controlplane.xds.identity_rules import IdentityRules, parsed
from controlplane.xds.node import identified

RULES = """
identities:
- match: spiffe://td/ns/{ns}/sa/{sa}
  ids: "{ns}/{sa}/*"
  clusters: ["{ns}"]
  metadata: {tenant: ["{ns}", shared], level: "3"}
  zones: [a]
- match: "{host}.edge.example"
  ids: "{host}"
  clusters: [edge]
  metadata: {"*": "*"}
"""
SPIFFE = "spiffe://td/ns/team/sa/web"


def rules(text: str = RULES) -> IdentityRules:
    return parsed(yaml.safe_load(text))


def problem(identity: str, node_id: str, cluster: str = "", zone: str = "", **metadata: object) -> str:
    """Return why a claim is refused; "" if it is not."""
    node = base_pb2.Node(id=node_id, cluster=cluster, locality=base_pb2.Locality(zone=zone))
    node.metadata.update(metadata)
    try:
        rules().check(identity, identified(node))
    except Error as error:
        text = f"{error.code.name} {error.reason} {error.message}"
        return text.removeprefix(f"PERMISSION_DENIED NOT_YOUR_CLAIM {identity}: ")
    return ""


def test_claims_that_a_rule_allows() -> None:
    assert problem(SPIFFE, "team/web/1", "team", "a", tenant="shared", level=3, nested={"tenant": "other"}) == ""
    assert problem("host-1.edge.example", "host-1", "edge", any="thing", more=["x"]) == ""


def test_claims_that_no_rule_allows() -> None:
    assert problem(SPIFFE, "other/web/1") == "may not claim node id 'other/web/1'; its rule allows team/web/*"
    assert problem(SPIFFE, "team/web/1", "other") == "may not claim cluster 'other'; its rule allows team"
    assert problem(SPIFFE, "team/web/1", zone="b") == "may not claim zone 'b'; its rule allows a"
    assert problem(SPIFFE, "team/web/1", tenant="other").startswith("may not claim metadata tenant: 'other'")
    assert problem(SPIFFE, "team/web/1", tenant=["team", "other"]).startswith("may not claim metadata tenant: 'other'")
    assert problem(SPIFFE, "team/web/1", unnamed="x") == "may not claim metadata unnamed: 'x'; its rule allows none"
    assert problem(SPIFFE, "team/web/1", level=4).startswith("may not claim metadata level: '4'")
    for stranger in ("spiffe://td2/ns/team/sa/web", f"{SPIFFE}/more", "spiffe://td/ns/a/b/sa/web", "x.y.edge.example", ""):
        assert problem(stranger, "team/web/1") == "no rule is for this identity"


def test_a_star_in_an_identity_is_no_pattern() -> None:
    assert problem("*.edge.example", "host-1").startswith("may not claim node id")
    assert problem("spiffe://td/ns/*/sa/*", "team/web/1").startswith("may not claim node id")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[]", "single key"),
        ("identities: [{ids: a}]", "must be a rule"),
        ("identities: [{match: a, id: b}]", "is not one of"),
        ("identities: [{match: a, ids: [1]}]", "text or a list"),
        ("identities: [{match: a, metadata: [x]}]", "mapping of keys"),
        ("identities: [{match: 'spiffe://td/{a}-{b}'}]", "whole part"),
        ("identities: [{match: 'spiffe://{a}/{a}'}]", "comes once"),
        ("identities: [{match: 'a*'}]", "without"),
        ("identities: [{match: a, ids: '{ns}'}]", "{ns} is not in match"),
        ("identities: [{match: a, ids: '*a*'}]", "more than one"),
    ],
)
def test_wrong_files_are_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(Error) as caught:
        rules(text)
    assert message in caught.value.message


def test_equal_rules_are_equal() -> None:
    assert rules() == rules()
    assert hash(rules()) == hash(rules())
    assert rules() != rules("identities: []")
