"""Decisions: rules in, answer with explanation out."""

from __future__ import annotations

import time

import pytest

from controlplane.access.caller import Caller, Credential
from controlplane.access.roles import Permission, Role
from controlplane.access.rules import Rule, Rules, Target, denied, matches
from controlplane.errors import Code

ANNA = Caller(Credential.USER, "anna", frozenset({"ml-team"}))
IRIS = Target("models/iris", ("edge",), {"team": "ml"})
SHARED = Target("models/wine", ("edge", "staging"), {"team": "ops"})


def rules(*rows: tuple[str, Role, dict[str, object]]) -> Rules:
    return Rules(tuple(Rule((who,), role, **scope) for who, role, scope in rows))  # type: ignore[arg-type]


def test_without_a_rule_everything_is_denied() -> None:
    for permission in Permission:
        assert not Rules().may(ANNA, permission, IRIS)
    assert Rules().may(ANNA, Permission.VIEW).explanation == "needs viewer; user:anna has no role"


@pytest.mark.parametrize(
    ("who", "allowed"),
    [
        ("user:anna", True),
        ("group:ml-team", True),
        ("everyone", True),
        ("user:an*", True),
        ("user:*na", True),
        ("token:anna", False),  # another kind of credential
        ("certificate:anna", False),
        ("user:annamarie", False),
        ("group:anna", False),
        ("user:*x", False),
    ],
)
def test_who_a_rule_is_for(who: str, allowed: bool) -> None:
    assert bool(rules((who, Role.SWITCHER, {})).may(ANNA, Permission.SWITCH, IRIS)) is allowed


@pytest.mark.parametrize(
    ("scope", "iris", "shared"),
    [
        ({}, True, True),
        ({"on": ("models/iris",)}, True, False),
        ({"on": ("models/*",)}, True, True),
        ({"on": ("models/i*", "models/w*")}, True, True),
        ({"on": ("gateways/edge",)}, False, False),
        ({"gateways": ("edge",)}, True, False),  # the traffic of the other one moves at staging, too
        ({"gateways": ("edge", "staging")}, True, True),
        ({"labels": {"team": "ml"}}, True, False),
        ({"labels": {"team": "ml", "stage": "x"}}, False, False),
        ({"on": ("models/*",), "labels": {"team": "ops"}}, False, True),
    ],
)
def test_the_objects_that_a_rule_is_for(scope: dict[str, object], iris: bool, shared: bool) -> None:
    mine = rules(("user:anna", Role.SWITCHER, scope))
    assert (bool(mine.may(ANNA, Permission.SWITCH, IRIS)), bool(mine.may(ANNA, Permission.SWITCH, SHARED))) == (iris, shared)
    assert bool(mine.may(ANNA, Permission.SWITCH)) is not bool(scope)  # None: everything
    assert mine.may(ANNA, Permission.VIEW)  # reading is not limited to objects


def test_groups_of_the_file_and_of_the_credential_count() -> None:
    both = Rules((Rule(("group:sre",), Role.ADMIN), Rule(("group:ml-team",), Role.VIEWER)), {"sre": ("token:ci", "user:b*")})
    assert both.may(Caller(Credential.TOKEN, "ci"), Permission.ADMIN)
    assert both.may(Caller(Credential.USER, "bob"), Permission.ADMIN)
    assert not both.may(ANNA, Permission.ADMIN)
    assert both.may(ANNA, Permission.VIEW)


def test_a_caller_without_a_credential_is_not_everyone() -> None:
    assert not rules(("everyone", Role.ADMIN, {})).may(Caller(), Permission.VIEW)


def test_a_refusal_explains_itself() -> None:
    mine = rules(("everyone", Role.VIEWER, {}), ("user:anna", Role.SWITCHER, {"on": ("models/wine",), "gateways": ("edge",)}))
    assert mine.may(Caller(Credential.USER, "bob"), Permission.SWITCH, IRIS).explanation == (
        "needs switcher on models/iris; user:bob is viewer"
    )
    decision = mine.may(ANNA, Permission.SWITCH, IRIS)
    text = "needs switcher on models/iris; user:anna is viewer, switcher on models/wine at gateway edge"
    assert decision.explanation == text
    error = denied(decision, "models/iris")
    assert (error.code, error.reason, error.message) == (Code.PERMISSION_DENIED, "NEEDS_ROLE", text)
    assert mine.may(ANNA, Permission.SWITCH, SHARED).explanation.startswith("needs switcher on models/wine; ")


def test_a_name_can_not_add_lines_to_an_explanation() -> None:
    text = Rules().may(Caller(Credential.CERTIFICATE, "x\nallowed\x1b[2J" + "y" * 10_000), Permission.VIEW).explanation
    assert "\n" not in text
    assert "\x1b" not in text
    assert len(text) < 400


def test_one_of_several_permissions_is_enough() -> None:
    mine = rules(("user:anna", Role.SWITCHER, {"on": ("models/iris",)}))
    assert mine.may_any(ANNA, (Permission.EDIT, Permission.SWITCH))
    assert mine.may_any(ANNA, (Permission.EDIT,)).explanation == "needs editor; user:anna is switcher on models/iris"


def test_patterns_match_in_linear_time() -> None:
    started = time.process_time()
    assert not matches("a*b", "a" * 1_000_000)
    assert time.process_time() - started < 0.5
    assert matches("*", "")
    assert not matches("a*a", "a")
