"""The access file: texts in, rules or errors with lines out."""

from __future__ import annotations

import pytest

from controlplane.access.caller import Caller, Credential
from controlplane.access.document import AccessFile, OidcSettings, parse
from controlplane.access.roles import Permission, Role
from controlplane.access.rules import Rule, Rules, Target
from controlplane.errors import Code, Error
from tests.structure.tree import ROOT

FULL = """
oidc:
  issuer: https://login.example.com/dex
  audience: turnout
  name_claim: email
  clock_skew: 5
groups:
  ml-team: [user:anna@example.com, token:ci]
rules:
  - who: [group:ml-team, "certificate:spiffe://td/ns/ml/*"]
    role: switcher
    on: [models/iris, models/wine-*, nodes/edge-1]
    gateways: [edge]
    labels: {team: ml}
  - who: [everyone]
    role: viewer
"""


def test_a_full_file() -> None:
    first = Rule(
        ("group:ml-team", "certificate:spiffe://td/ns/ml/*"),
        Role.SWITCHER,
        ("models/iris", "models/wine-*", "nodes/edge-1"),
        ("edge",),
        {"team": "ml"},
    )
    rules = Rules((first, Rule(("everyone",), Role.VIEWER)), {"ml-team": ("user:anna@example.com", "token:ci")})
    oidc = OidcSettings("https://login.example.com/dex", "turnout", "email", clock_skew=5)
    assert parse(FULL, "access.yaml") == AccessFile(rules, oidc)


def test_the_example() -> None:
    path = ROOT / "examples" / "access" / "access.yaml"
    content = parse(path.read_text(encoding="utf-8"), str(path))
    caller = Caller(Credential.CERTIFICATE, "spiffe://example.com/ns/ci/sa/deploy")
    assert content.rules.may(caller, Permission.EDIT, Target("models/iris", ("staging",)))
    assert not content.rules.may(caller, Permission.EDIT, Target("models/iris", ("staging", "edge")))


def test_json_is_yaml() -> None:
    assert parse('{"rules": [{"who": ["token:ci"], "role": "admin"}]}', "a.json").rules == Rules(
        (Rule(("token:ci",), Role.ADMIN),)
    )


def rule(**fields: str) -> str:
    entries = {"who": "[user:anna]", "role": "editor"} | fields
    return "rules:\n- " + "\n  ".join(f"{key}: {value}" for key, value in entries.items() if value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "a.yaml: is empty"),
        ("rules: []\nrule: 1", "a.yaml:2: unknown key 'rule'; did you mean 'rules'?"),
        ("groups: {}", "a.yaml:1: needs `rules`: without them, everything is denied"),
        ("rules: 1", "a.yaml:1: rules: must be a list"),
        ("rules: [a]", "a.yaml:1: rules[0]: must be a mapping"),
        ("rules: [\n", "a.yaml:2: is not YAML"),
        ("[" * 5_000, "a.yaml: is not YAML: is nested too deep"),
        (rule(role="swicher"), "a.yaml:3: rules[0].role: 'swicher' is not a role; did you mean 'switcher'?"),
        (rule(role=""), "a.yaml:2: rules[0]: needs `role`"),
        (rule(who=""), "a.yaml:2: rules[0]: needs `who`"),
        (
            rule(who="[anna]"),
            "a.yaml:2: rules[0].who[0]: 'anna' is not user:NAME, token:NAME, certificate:NAME, group:NAME or everyone",
        ),
        (rule(who="user:anna"), "a.yaml:2: rules[0].who: must be a list"),
        (rule(who="['user:*a*']"), "a.yaml:2: rules[0].who[0]: 'user:*a*' has more than one '*'"),
        (
            rule(on="[iris]"),
            "a.yaml:4: rules[0].on[0]: 'iris' is not COLLECTION/NAME, like models/iris or models/*; there are:",
        ),
        (rule(on="[model/iris]"), "'model/iris' is not COLLECTION/NAME, like models/iris or models/*; did you mean 'models'?"),
        (rule(on="[]"), "a.yaml:4: rules[0].on: is empty: leave it out if the rule is for everything"),
        (rule(labels="{a: [b]}"), "a.yaml:4: rules[0].labels.a: must be a text"),
        (rule(role="viewer", on="[models/iris]"), "a.yaml:4: rules[0].on: viewer is for everything: leave it out"),
        (rule(whom="x"), "a.yaml:4: rules[0]: unknown key 'whom'"),
        (rule() + "\n  role: admin", "a.yaml:4: rules[0]: 'role' is given twice"),
        (
            "groups: {a: [group:b]}\nrules: []",
            "a.yaml:1: groups.a[0]: 'group:b' is not user:NAME, token:NAME or certificate:NAME",
        ),
        ("oidc: {issuer: https://x}\nrules: []", "a.yaml:1: oidc: needs `audience`"),
        ("oidc: {issuer: http://x, audience: a}\nrules: []", "'http://x' is not an https URL (http on loopback only)"),
        ("oidc: {issuer: https://x, audience: a, clock_skew: 9999}\nrules: []", "'9999' is not a number of seconds: 0 to 300"),
    ],
)
def test_errors_name_the_line_and_what_would_be_right(text: str, problem: str) -> None:
    with pytest.raises(Error) as caught:
        parse(text, "a.yaml")
    assert caught.value.code is Code.INVALID_ARGUMENT
    assert problem in caught.value.message


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(Error) as caught:
        parse("rules:\n- {who: [x], role: y}\n- {who: [everyone], role: admin}\n- {role: z}\n", "a.yaml")
    assert [line.split(" ")[0] for line in caught.value.message.splitlines()] == ["a.yaml:2:", "a.yaml:2:", "a.yaml:4:"]


def test_a_large_file_is_refused_before_it_is_read() -> None:
    with pytest.raises(Error, match="larger than"):
        parse("# " + "x" * 2**20, "a.yaml")
