"""Outcomes: numbers, metadata of objects that were only validated, and conversions on a thread."""

from __future__ import annotations

import threading
from typing import Any

from controlplane.api.outcomes import meta_of, number_of, off_loop, revision_of
from controlplane.compiler.impact import NO_IMPACT
from controlplane.domain import Gateway
from controlplane.domain.revision import Action, Draft, Head, Revision
from controlplane.domain.state import Changes
from controlplane.writer import Outcome

EDGE, OTHER = Gateway("edge", 80), Gateway("other", 81)
DRAFT = Draft("ann", "why", Action.CREATE, time=5.0)


def outcome(changed: bool = True) -> Outcome:
    """Return the outcome of a write that created `other` as revision 2."""
    head = Head().after(Changes({"gateways/edge": EDGE}), DRAFT).after(Changes({"gateways/other": OTHER}), DRAFT)
    return Outcome(head, Revision(2, DRAFT, {"gateways/other": (None, OTHER)}), changed, NO_IMPACT, {})


def test_the_number_is_0_when_nothing_was_made() -> None:
    assert number_of(outcome(), validate_only=False) == 2
    assert number_of(outcome(), validate_only=True) == 0
    assert number_of(Outcome(Head(), None, False, NO_IMPACT, {}), validate_only=False) == 0


def test_an_object_that_was_only_validated_has_no_metadata() -> None:
    def revision(name: str, result: Outcome, validate_only: bool) -> int | None:
        meta = meta_of(result, name, validate_only)
        return meta.revision if meta else None

    assert revision("gateways/other", outcome(), validate_only=False) == 2
    assert revision("gateways/other", outcome(), validate_only=True) is None
    assert revision("gateways/other", outcome(changed=False), validate_only=True) == 2
    assert revision("gateways/edge", outcome(), validate_only=True) == 1
    assert revision("gateways/none", outcome(), validate_only=False) is None


async def test_the_revision_of_an_outcome() -> None:
    message = await revision_of(outcome())
    assert message is not None
    assert (message.number, message.author, [c.name for c in message.changes]) == (2, "ann", ["gateways/other"])
    assert await revision_of(Outcome(Head(), None, False, NO_IMPACT, {})) is None


async def test_many_objects_are_converted_on_a_thread() -> None:
    def thread(value: Any) -> Any:
        return value, threading.current_thread()

    assert await off_loop(thread, "few", 50) == ("few", threading.main_thread())
    value, converter = await off_loop(thread, "many", 51)
    assert value == "many"
    assert converter is not threading.main_thread()
