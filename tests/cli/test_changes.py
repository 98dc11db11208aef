"""Changes and impacts as lines."""

from __future__ import annotations

import pytest

from controlplane.cli import changes
from controlplane.generated.turnout.v1.revision_pb2 import Change, ChangeKind, Impact, TypeImpact

EVIL = "a\x1b]0;owned\x07\x1b[2Jb\x9bc\rd\x00\u202ee\u200bf\U000e0041"


def test_warnings_are_a_line_each(capfd: pytest.CaptureFixture[str]) -> None:
    changes.print_warnings(Impact(warnings=["one", EVIL]))
    printed = capfd.readouterr().out
    assert printed.startswith("Warning: one\nWarning: a\\u001b")
    assert len(printed.splitlines()) == 2


CREATED, UPDATED, DELETED = (
    ChangeKind.CHANGE_KIND_CREATED,
    ChangeKind.CHANGE_KIND_UPDATED,
    ChangeKind.CHANGE_KIND_DELETED,
)


def test_each_change_has_its_mark_and_its_lines(capfd: pytest.CaptureFixture[str]) -> None:
    listed = [
        Change(name="models/a", kind=CREATED, lines=["x: 1", "y: 2"]),
        Change(name="models/b", kind=UPDATED),
        Change(name="models/c", kind=DELETED),
    ]
    changes.print_changes(listed)
    assert capfd.readouterr().out == "+ models/a\n    x: 1\n    y: 2\n~ models/b\n- models/c\n"
    changes.print_changes(listed, 1)
    assert capfd.readouterr().out.endswith("and 2 more; `turnout diff` shows all\n")


def test_a_summary_is_one_cell() -> None:
    update = Change(name="models/b", kind=UPDATED, lines=["split: blue 10000 -> green 10000"])
    assert changes.summary([update]) == "~ models/b split: blue 10000 -> green 10000"
    assert changes.summary([Change(name="models/a", kind=CREATED, lines=["x", "y"])] * 6).endswith("and 2 more")
    several = Change(name="gateways/g", kind=UPDATED, lines=["port: 80 -> 81", "address: a -> b", "tls: none -> x"])
    assert changes.summary([several, update]) == (
        "~ gateways/g port: 80 -> 81 (and 2 more), ~ models/b split: blue 10000 -> green 10000"
    )


def test_an_impact_always_counts_listeners() -> None:
    routes = TypeImpact(type="RouteConfiguration", changed=1)
    assert changes.describe_impact(Impact(types=[routes], nodes=3)) == "1 RouteConfiguration, 0 Listeners"
    removed = TypeImpact(type="Listener", removed=2)
    text = changes.describe_impact(Impact(types=[removed], nodes=1, bytes_per_node=1_234))
    assert text == "2 Listeners removed, 1,234 bytes each"
