"""A published revision: audiences, snapshots that are compiled once, and objects that stay the same."""

from __future__ import annotations

from collections.abc import Mapping

from controlplane.compiler import NO_META, audiences
from controlplane.domain.endpoints import Endpoints
from controlplane.domain.revision import ObjectMeta
from controlplane.domain.state import State
from controlplane.published import IDLE_REVISIONS, NO_REVISION, CompiledRevision
from controlplane.snapshot import Audience, Snapshot
from tests.events import AT_EDGE, EDGE, INNER, head


class Compiler:
    """Compiles empty snapshots, and records its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, Audience, int | None]] = []
        self.broken = False

    def compile(
        self,
        state: State,
        endpoints: Endpoints,
        audience: Audience,
        revision: int,
        previous: Snapshot | None = None,
        meta: Mapping[str, ObjectMeta] = NO_META,
    ) -> Snapshot:
        if self.broken:
            raise RuntimeError("broken")
        self.calls.append((revision, audience, previous.revision if previous else None))
        return Snapshot.of(revision, audience, [])


def test_each_audience_is_compiled_once_and_on_demand() -> None:
    compiler = Compiler()
    first = CompiledRevision(head(1, EDGE, INNER), compiler)
    assert compiler.calls == []
    assert first.snapshot(AT_EDGE) is first.snapshot(AT_EDGE)
    first.snapshot(Audience(("inner",)))
    assert compiler.calls == [(1, AT_EDGE, None), (1, Audience(("inner",)), None)]
    # The next revision compiles ahead, from the earlier snapshot, but not for an audience whose gateway was deleted.
    compiler.calls.clear()
    first.next(head(2, EDGE))
    assert compiler.calls == [(2, AT_EDGE, 1)]


def test_an_idle_audience_is_compiled_ahead_for_a_bounded_number_of_revisions() -> None:
    compiler = Compiler()
    revision = CompiledRevision(head(1, EDGE), compiler)
    revision.snapshot(AT_EDGE)
    compiler.calls.clear()
    for number in range(2, 100):
        revision = revision.next(head(number, EDGE))
    assert compiler.calls == [(number, AT_EDGE, number - 1) for number in range(2, IDLE_REVISIONS + 2)]
    # After that it is compiled when a stream asks for it, without an earlier snapshot.
    compiler.calls.clear()
    assert revision.snapshot(AT_EDGE).revision == 99
    assert compiler.calls == [(99, AT_EDGE, None)]


def test_equal_gateways_are_the_same_object_in_the_next_revision() -> None:
    first = CompiledRevision(head(1, EDGE), Compiler())
    second = first.next(head(2, EDGE))
    third = second.next(head(3, EDGE, INNER))
    assert first.gateways is second.gateways is not third.gateways
    assert [r.note(Audience()) for r in (second, third)] == [
        "no gateway selects it: edge wants cluster in [edge]",
        "no gateway selects it: edge wants cluster in [edge]; inner wants metadata zone = in",
    ]


def test_on_served_is_called_once_for_each_snapshot_that_a_stream_asks_for() -> None:
    served: list[tuple[int, Audience]] = []
    inner = Audience(("inner",))
    first = CompiledRevision(head(1, EDGE, INNER), Compiler(), on_served=lambda s: served.append((s.revision, s.audience)))
    for audience in (AT_EDGE, inner, AT_EDGE, AT_EDGE):
        first.snapshot(audience)
    assert served == [(1, AT_EDGE), (1, inner)]
    # The next revision is compiled ahead, which is not asked for yet.
    second = first.next(head(2, EDGE, INNER))
    assert len(served) == 2
    second.snapshot(inner)
    assert served[2:] == [(2, inner)]


def test_all_audiences_are_compiled_and_none_of_them_counts_as_served() -> None:
    compiler, served = Compiler(), list[Audience]()
    revision = CompiledRevision(head(1, EDGE), compiler, on_served=lambda s: served.append(s.audience))
    revision.compile_all()
    assert {audience for _, audience, _ in compiler.calls} == audiences(revision.state)
    assert served == []
    revision.snapshot(AT_EDGE)
    assert served == [AT_EDGE]


def test_the_note_without_a_revision() -> None:
    assert CompiledRevision(head(0), Compiler()).note(AT_EDGE) == NO_REVISION
