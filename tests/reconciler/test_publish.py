"""The publisher: it publishes the store's newest head, and a burst of heads together."""

import asyncio
import time
from dataclasses import replace

from structlog.testing import capture_logs

from controlplane.aio.latest import Latest
from controlplane.compiler import Compiler as RealCompiler
from controlplane.domain import Patch, PatchTarget
from controlplane.reconciler.publish import COALESCE, Publisher
from tests.events import AT_EDGE, EDGE, head
from tests.test_published import Compiler


async def test_the_revision_before_stays_published_if_a_head_does_not_compile() -> None:
    compiler, heads, published = Compiler(), Latest(head(1, EDGE)), list[int]()
    publisher = Publisher(heads, compiler, lambda h: published.append(h.number))
    publisher.publish()
    before = publisher.published.value
    assert before is not None
    before.snapshot(AT_EDGE)
    compiler.broken = True
    heads.set(head(2, EDGE))
    with capture_logs() as lines:
        publisher.publish()
    assert publisher.published.value is before
    assert published == [1]
    assert [(line["event"], line["log_level"]) for line in lines] == [("revision not served: it does not compile", "error")]


async def test_a_head_whose_plugin_is_gone_is_not_published_and_a_repaired_one_is() -> None:
    call = Patch("a", PatchTarget.FUNCTION, "{}", function="f", hash="0" * 32)
    patched, published = replace(EDGE, patches=(call,)), list[int]()
    heads = Latest(head(1, patched))
    publisher = Publisher(heads, RealCompiler(), lambda h: published.append(h.number))
    with capture_logs() as lines:
        publisher.publish()
    assert publisher.published.value is None
    assert publisher.problem.startswith("gateways/edge.patches[0].function: the server has no plug-in")
    assert [(line["event"], line["reason"]) for line in lines] == [
        ("revision not served: it does not compile", publisher.problem)
    ]
    heads.set(head(2, EDGE))
    publisher.publish()
    assert (publisher.problem, published) == ("", [2])
    served = publisher.published.value
    assert served is not None
    served.snapshot(AT_EDGE)
    heads.set(head(3, patched))
    publisher.publish()
    assert publisher.published.value is served
    assert publisher.problem


async def test_on_publish_is_called_before_the_streams_get_a_head() -> None:
    heads, seen = Latest(head(1)), list[tuple[int, int | None]]()
    publisher = Publisher(
        heads, Compiler(), lambda h: seen.append((h.number, r.revision if (r := publisher.published.value) else None))
    )
    with capture_logs() as lines:
        publisher.publish()
        assert lines == []  # the line "serving" of the app names the first revision
        heads.set(head(2))
        publisher.publish()
    assert seen == [(1, None), (2, 1)]
    assert [(line["event"], line["revision"]) for line in lines] == [("revision served", 2)]
    assert 0 <= lines[0]["ms"] < 60_000


async def test_a_first_change_is_published_at_once_and_a_following_burst_together() -> None:
    heads = Latest(head(1))
    publisher = Publisher(heads, Compiler(), lambda head: None)
    publisher.publish()
    run = asyncio.create_task(publisher.run())
    served: list[int] = []

    async def watch() -> None:
        async for revision in publisher.published.watch():
            if revision is not None:
                served.append(revision.revision)

    watching = asyncio.create_task(watch())
    began = time.monotonic()
    async with asyncio.timeout(5):
        await asyncio.sleep(0.02)
        assert publisher.published.serial == 1  # a head that is published is not published again
        for number in range(2, 40):
            heads.set(head(number))
            await asyncio.sleep(0)
        while publisher.published.value is None or publisher.published.value.revision < 39:
            await publisher.published.newer(publisher.published.serial)
        await asyncio.sleep(0)
    for task in (run, watching):
        task.cancel()
    assert served[0] == 1
    assert served[-1] == 39
    assert served[1] in (2, 3)
    assert len(served) <= 4 + (time.monotonic() - began) / COALESCE
