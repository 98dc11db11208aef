"""Publishes desired state: each new head of the store becomes the revision that the streams serve."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

import structlog

from controlplane.aio.latest import Latest
from controlplane.domain.patch_functions import uses_functions
from controlplane.domain.revision import Head
from controlplane.errors import Error
from controlplane.published import CompiledRevision, SnapshotCompiler
from controlplane.snapshot import Snapshot

log = structlog.get_logger("fleet")

# Seconds. After a change is published, all changes that follow within this time are published together.
COALESCE = 0.005


class Publisher:
    """Sets `published` to the newest revision of the store. It may be late, but a writer never waits for it.

    A head that does not compile is not published: the revision before stays published. Without one, as at a start, nothing is.
    """

    def __init__(
        self,
        head: Latest[Head],
        compiler: SnapshotCompiler,
        on_publish: Callable[[Head], None],
        on_served: Callable[[Snapshot], None] | None = None,
    ) -> None:
        """Follow `head`. `on_publish` is called with each head just before the streams get it.

        `on_served` is called once with each snapshot that a stream is served.
        """
        self._on_served = on_served
        self._head = head
        self._compiler = compiler
        self._on_publish = on_publish
        # Serial number of the newest head that `publish` has tried to publish.
        self._seen = -1
        # The reason why the newest head is not served; "" if it is.
        self.problem = ""
        # None until the first revision is published; streams are refused until then.
        self.published: Latest[CompiledRevision | None] = Latest(None)

    def publish(self) -> None:
        """Publish the newest revision. If it can't be compiled, the earlier revision stays published."""
        self._seen, head = self._head.serial, self._head.value
        before = self.published.value
        try:
            revision = before.next(head) if before else CompiledRevision(head, self._compiler, on_served=self._on_served)
            if before is None and uses_functions(head.state):
                # The plug-in of the head may not be here. Then no stream is taken, rather than served something else.
                revision.compile_all()
        except Error as error:
            self.problem = error.message
            log.error("revision not served: it does not compile", revision=head.number, reason=error.message)
            return
        except Exception as error:  # with a defect of the compiler, the fleet must keep its configuration
            self.problem = f"a defect of Turnout: {error!r}"
            log.exception("revision not served: it does not compile", revision=head.number)
            return
        repaired, self.problem = bool(self.problem), ""
        self._on_publish(head)
        self.published.set(revision)
        if before is not None or repaired:
            log.info("revision served", revision=head.number, ms=round((time.time() - head.time) * 1000, 1))

    async def run(self) -> None:
        """Publish each newer revision, until cancelled."""
        while True:
            await self._head.newer(self._seen)
            self.publish()
            await asyncio.sleep(COALESCE)
