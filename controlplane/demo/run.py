"""`turnout demo`: the main job end to end, with real Envoys, a real model and real load, and a receipt that is checked."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any, Literal

import aiohttp
from google.protobuf.timestamp_pb2 import Timestamp
from rich.console import Console
from rich.table import Table

from controlplane.demo import models
from controlplane.demo.envoy import Envoy, envoy_binary
from controlplane.demo.load import Group, Load
from controlplane.demo.modelserver import ModelServer, request
from controlplane.demo.plane import ControlPlane, free_port
from controlplane.demo.receipt import STREAMS, Move, Receipt, judge
from controlplane.errors import Code, Error
from controlplane.generated.turnout.v1.gateway_pb2 import Gateway, NodeSelector
from controlplane.generated.turnout.v1.model_pb2 import Endpoint, Model, Sticky, Version
from controlplane.generated.turnout.v1.revision_service_pb2 import Manifest

_PATH = f"/v2/models/{models.NAME}"
_RATE = 600.0  # requests a second of all users together; two cores carry it with ease
_SECONDS = 5.0  # of calling before, between and after the moves
_STREAMS = 4  # answers that stream at once through each Envoy
_INTERRUPTED = 130


def main(
    *, keep: bool = False, users: int = 2000, envoys: int = 3, seed: int = 1, form: str = "table", seconds: float = _SECONDS
) -> int:
    """Runs the demo. Returns 0 when all that it promises held, 1 when not (and says what), 130 when it was interrupted.

    `form` "json" prints the receipt as JSON, and everything else to stderr. Errors: when something could not be started.
    """
    envoy_binary()
    demo = Demo(users, envoys, seed, form, seconds)
    try:
        return asyncio.run(demo.run(keep))
    except (KeyboardInterrupt, asyncio.CancelledError):
        demo.console.print("ended; nothing is left running")
        return _INTERRUPTED


class Demo:
    """What is under way, and how it is told."""

    def __init__(self, users: int, envoys: int, seed: int, form: str, seconds: float) -> None:
        self.users = users
        self.seed = seed
        self.form = form
        self.seconds = seconds
        # Much longer than a switch, and shorter than the time between two: each ends on the version that it began on.
        self.stream_seconds = 0.6 * seconds
        self.console = Console(stderr=form == "json", highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.plane = ControlPlane()
        # By version, and by node; a node's gateway has the node's name.
        self.servers = {version: ModelServer(version, seed) for version in models.VERSIONS}
        self.ports = {f"edge-{i + 1}": free_port() for i in range(envoys)}
        self.envoys: dict[str, Envoy] = {}

    async def run(self, keep: bool) -> int:
        """The whole story. Everything that was started has ended when it returns or raises."""
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            self._head(f"{len(self.ports)} Envoys, 2 versions of a model, {self.users:,} users")
            await self._set_up()
            load = Load(self._groups(), users=self.users)
            stack.push_async_callback(load.close)
            await load.start()
            await self._calling(load, "users call, and blue answers", least=self.users)
            accuracy = await self._accuracy("blue")
            self._say(f"blue, {models.WHAT['blue']}, reads {accuracy:.1%} of the test pictures right")
            moves = [await self._move(load, "blue", "green", "switch", models.NAME, "--to", "green")]
            moves.append(await self._move(load, "green", "blue", "undo"))
            receipt = judge(moves, await load.stop(), len(self.ports), self.users)
            self._show(receipt)
            if keep:
                await self._keep(stack)
        return 1 if receipt.broken else 0

    # ------------------------------------------------------------------------------------------------------ set up

    async def _set_up(self) -> None:
        start = time.monotonic()
        with self.console.status("training two versions of a model, starting the control plane …"):
            await asyncio.gather(self.plane.start(), *(s.start() for s in self.servers.values()))
            for number, node in enumerate(self.ports):
                # The last one speaks the older form of the protocol, as many Envoys do.
                variant: Literal["delta", "sotw"] = "sotw" if number and number == len(self.ports) - 1 else "delta"
                self.envoys[node] = self.plane.envoy(node, variant)
            await asyncio.gather(*(e.start() for e in self.envoys.values()))
            await asyncio.gather(*(s.ready() for s in self.servers.values()))
        self._say(f"two model servers: blue is {models.WHAT['blue']}, green {models.WHAT['green']}", start)
        with self.console.status("the Envoys take what they are for …"):
            revision = await self.plane.apply(self._manifest(), reason="the demo begins")
            progress = await self.plane.held(revision, nodes=len(self.ports))
            await asyncio.gather(*(e.ready() for e in self.envoys.values()))
            await asyncio.gather(*(e.listens(self.ports[node]) for node, e in self.envoys.items()))
        self._say(f"control plane on an embedded store, API at {self.plane.api}", start)
        kinds = ", ".join(self.envoys)
        self._say(f"{progress.holding} Envoys ({kinds}; the last by state-of-the-world, the others by delta)", start)
        self._say(f"revision {revision}: a gateway for each, and the model `{models.NAME}`, all of it on blue", start)

    def _manifest(self) -> Manifest:
        manifest = Manifest()
        for node, port in self.ports.items():
            manifest.gateways.append(Gateway(name=node, address="127.0.0.1", port=port, nodes=NodeSelector(ids=[node])))
        versions = [
            Version(name=name, endpoints=[Endpoint(host="127.0.0.1", port=server.port)])
            for name, server in self.servers.items()
        ]
        manifest.models.append(
            Model(
                name=models.NAME,
                gateways=list(self.ports),
                versions=versions,
                split={"blue": 10_000},
                sticky=Sticky(header="x-user"),
                preview_header="x-version",
            )
        )
        return manifest

    def _groups(self) -> list[Group]:
        """Half of the users speak HTTP/1.1, half HTTP/2; and some listen to answers that stream for seconds."""
        body = json.dumps(request(models.data(self.seed).test[:1]))
        rate = _RATE / len(self.ports) / 2
        groups = []
        for port in self.ports.values():
            groups.append(Group("127.0.0.1", port, f"{_PATH}/infer", name="http1", body=body, connections=8, rate=rate))
            groups.append(
                Group(
                    "127.0.0.1", port, f"{_PATH}/infer", name="http2", body=body, http2=True, connections=1, slots=8, rate=rate
                )
            )
            stream = f"{_PATH}/stream?seconds={self.stream_seconds:g}"
            # A little slower than they could, so that they begin one after the other, and some are always half way.
            pace = _STREAMS / (1.1 * self.stream_seconds)
            groups.append(Group("127.0.0.1", port, stream, name=STREAMS, body="{}", connections=_STREAMS, rate=pace))
        return groups

    # ------------------------------------------------------------------------------------------------------- moves

    async def _move(self, load: Load, old: str, new: str, *command: str) -> Move:
        """Runs `turnout` as an operator would, and lets users call for a while. Errors: UNAVAILABLE when it failed."""
        said = f"turnout {' '.join(command)}"
        self.console.print(f"\n$ {said}", style="bold")
        arguments = [*self.plane.command, "--api", self.plane.api, *command, "-o", "json", "--timeout", "30"]
        # Its progress goes to this terminal, its receipt comes here.
        child = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
        try:
            out, _ = await child.communicate()
        except asyncio.CancelledError:
            child.kill()
            await child.wait()
            raise
        try:
            answer = json.loads(out)
            progress: Mapping[str, Any] = answer["progress"]
            commit, last_ack = _seconds(answer["revision"]["createTime"]), _seconds(progress["lastAckTime"])
        except (ValueError, KeyError):
            raise Error(Code.UNAVAILABLE, "MOVE_FAILED", f"`{said}` ended with status {child.returncode}") from None
        for node in sorted(progress["nodes"], key=lambda n: str(n.get("holdTime", "~"))):
            if "holdTime" in node:
                self._say(
                    f"{node['node'].removeprefix('nodes/')} ACKed after {(_seconds(node['holdTime']) - commit) * 1e3:.1f} ms"
                )
        await self._calling(load, f"users call, and {new} answers")
        accuracy = await self._accuracy(new)
        self._say(f"{new}, {models.WHAT[new]}, reads {accuracy:.1%} of the test pictures right")
        number = int(answer["revision"]["number"])
        return Move(said, old, new, number, int(progress["holding"]), commit, last_ack, accuracy)

    async def _accuracy(self, version: str) -> float:
        """How many test pictures are read right, 0 to 1, asked through an Envoy. Errors: INTERNAL when another one answers."""
        data = models.data(self.seed)
        url = f"http://127.0.0.1:{next(iter(self.ports.values()))}{_PATH}/infer"
        timeout = aiohttp.ClientTimeout(30)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, json=request(data.test)) as answer:
            if answer.status != 200:
                raise Error(Code.UNAVAILABLE, "NOT_ANSWERED", f"the test set was answered with {answer.status}")
            said = await answer.json()
        if said["model_version"] != version:
            raise Error(Code.INTERNAL, "WRONG_VERSION", f"{said['model_version']} answered, {version} should have")
        pairs = list(zip(said["outputs"][0]["data"], data.test_digits.tolist(), strict=True))
        return sum(1 for a, b in pairs if a == b) / len(pairs)

    async def _calling(self, load: Load, text: str, least: int = 0) -> None:
        """Lets users call for a while, and until there were that many requests; shows how it goes."""
        began, first = time.monotonic(), sum(load.progress().values())
        with self.console.status(text) as status:
            while True:
                load.process.check()
                counts, passed = load.progress(), time.monotonic() - began
                if passed >= self.seconds and sum(counts.values()) >= least:
                    break
                said = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
                status.update(f"{text}: {(sum(counts.values()) - first) / max(passed, 0.1):,.0f} requests/s; so far {said}")
                await asyncio.sleep(0.2)
        rate = (sum(load.progress().values()) - first) / (time.monotonic() - began)
        self._say(
            f"{text}: {rate:,.0f} requests/s over HTTP/1.1 and HTTP/2, and answers that stream for {self.stream_seconds:g} s"
        )

    # --------------------------------------------------------------------------------------------------------- told

    def _head(self, text: str) -> None:
        self.console.print(f"turnout demo: {text}", style="bold")

    def _say(self, text: str, since: float | None = None) -> None:
        took = f"  ({time.monotonic() - since:.1f} s)" if since is not None else ""
        self.console.print(f"  {text}{took}")

    def _show(self, receipt: Receipt) -> None:
        if self.form == "json":
            sys.stdout.write(json.dumps(receipt.as_json(), indent=2) + "\n")
            sys.stdout.flush()
        table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="bold")
        table.add_column("")
        rows: dict[str, list[str]] = {}
        for line in receipt.lines:
            move = line.move
            table.add_column(move.command, justify="right")
            for name, value in (
                ("revision", str(move.revision)),
                ("nodes that ACKed", f"{move.nodes} of {receipt.nodes}"),
                ("commit to last ACK", f"{(move.last_ack - move.commit) * 1e3:.1f} ms"),
                ("requests before", _counts(line.before)),
                ("requests after", _counts(line.after)),
                ("late, to the old version", str(line.late)),
                ("streams that outlived it", str(line.outlived)),
                ("requests failed", str(line.failed)),
                ("read right afterwards", f"{move.accuracy:.1%}" if move.accuracy is not None else ""),
            ):
                rows.setdefault(name, []).append(value)
        for name, values in rows.items():
            table.add_row(name, *values)
        self.console.print()
        self.console.print(table)
        self.console.print()
        if receipt.broken:
            self.console.print("This did not hold:", style="bold red")
            for sentence in receipt.broken:
                self.console.print(f"  {sentence}", style="red")
        else:
            said = f"All held: {receipt.requests:,} requests of {receipt.users:,} users, {receipt.failed} failed"
            self.console.print(said, style="bold green")

    async def _keep(self, stack: AsyncExitStack) -> None:
        """Goes on until it is interrupted."""
        load = Load(self._groups(), users=self.users)
        stack.push_async_callback(load.close)
        await load.start()
        turnout, port = f"turnout --api {self.plane.api}", next(iter(self.ports.values()))
        body = json.dumps(request(models.data(self.seed).test[:1]), separators=(",", ":"))
        self._head("it goes on, and users go on calling; in another terminal try")
        for command in (
            "status --watch",
            f"split {models.NAME} blue=90% green=10%",
            f"switch {models.NAME} --to green --reason 'reads better'",
            "history",
            "undo",
            "nodes",
        ):
            self.console.print(f"  {turnout} {command}")
        self.console.print(f"  curl -s http://127.0.0.1:{port}{_PATH}")
        self.console.print(f"  curl -s -H 'x-user: u7' -H 'x-version: green' http://127.0.0.1:{port}{_PATH}/infer -d '{body}'")
        for node, envoy in self.envoys.items():
            self.console.print(f"  {node}: listens on 127.0.0.1:{self.ports[node]}, its admin page is http://{envoy.admin}")
        self.console.print("Ctrl-C ends it all.", style="bold")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # That is how it is meant to end: what counts is the receipt.
            if (task := asyncio.current_task()) is not None:
                task.uncancel()

    async def _close(self) -> None:
        await asyncio.gather(*(e.close() for e in self.envoys.values()))
        await asyncio.gather(self.plane.close(), *(s.close() for s in self.servers.values()))


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{version} {count:,}" for version, count in sorted(counts.items())) or "none"


def _seconds(stamp: str) -> float:
    """Seconds since the epoch, of a time in the proto's JSON form."""
    parsed = Timestamp()
    parsed.FromJsonString(stamp)
    return parsed.ToNanoseconds() / 1e9
