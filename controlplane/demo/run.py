"""`turnout demo`: a switch and an undo with real Envoys, a real model and real load, and a receipt that is checked."""

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

from controlplane.demo import models, scenario, suggestions
from controlplane.demo.envoy import Envoy, envoy_binary
from controlplane.demo.load import Load
from controlplane.demo.modelserver import ModelServer, request
from controlplane.demo.plane import ControlPlane
from controlplane.demo.ports import free_port
from controlplane.demo.receipt import Move, Receipt, judge
from controlplane.demo.report import print_receipt
from controlplane.errors import Code, Error

# Seconds of load before, between and after the moves.
_SECONDS = 5.0
_INTERRUPTED = 130


def main(
    *, keep: bool = False, users: int = 2000, envoys: int = 3, seed: int = 1, form: str = "table", seconds: float = _SECONDS
) -> int:
    """Run the demo. Return 0 if all promises were kept, 1 if not, 130 after an interrupt.

    `form` "json" prints the receipt as JSON to stdout, and everything else to stderr. Errors: Error if something can't start.
    """
    envoy_binary()
    demo = Demo(users, envoys, seed, form, seconds)
    try:
        return asyncio.run(demo.run(keep))
    except (KeyboardInterrupt, asyncio.CancelledError):
        demo.console.print("Interrupted. Nothing is left running.")
        return _INTERRUPTED


class Demo:
    """The processes of a demo, its steps, and what it prints."""

    def __init__(self, users: int, envoys: int, seed: int, form: str, seconds: float) -> None:
        self.users = users
        self.seed = seed
        self.form = form
        self.seconds = seconds
        # Much longer than a switch takes, but shorter than the time between two switches.
        self.stream_seconds = 0.6 * seconds
        self.console = Console(stderr=form == "json", highlight=False, markup=False, emoji=False, soft_wrap=True)
        self.plane = ControlPlane()
        # Servers by version; ports and Envoys by node. The gateway of a node has the node's name.
        self.servers = {version: ModelServer(version, seed) for version in models.VERSIONS}
        self.ports = {f"edge-{i + 1}": free_port() for i in range(envoys)}
        self.envoys: dict[str, Envoy] = {}

    async def run(self, keep: bool) -> int:
        """Run all steps. When it returns or raises, every process that it started has ended."""
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        async with AsyncExitStack() as stack:
            stack.push_async_callback(self._close)
            self._headline(f"{len(self.ports)} Envoys, 2 versions of a model, {self.users:,} users")
            await self._set_up()
            load = self._load()
            stack.push_async_callback(load.close)
            await load.start()
            await self._watch_load(load, "blue", min_requests=self.users)
            accuracy = await self._accuracy("blue")
            self._print(f"blue, {models.KIND['blue']}, reads {accuracy:.1%} of the test pictures correctly")
            moves = [await self._move(load, "blue", "green", "switch", models.NAME, "--to", "green")]
            moves.append(await self._move(load, "green", "blue", "undo", models.NAME))
            receipt = judge(moves, await load.stop(), len(self.ports), self.users)
            self._print_receipt(receipt)
            if keep:
                await self._keep(stack)
        return 1 if receipt.broken else 0

    # ------------------------------------------------------------------------------------------------------ set up

    async def _set_up(self) -> None:
        start = time.monotonic()
        with self.console.status("training two versions of a model, and starting the control plane …"):
            await asyncio.gather(self.plane.start(), *(s.start() for s in self.servers.values()))
            for number, node in enumerate(self.ports):
                # The last one uses the older variant of the protocol, as many Envoys do.
                variant: Literal["delta", "sotw"] = "sotw" if number and number == len(self.ports) - 1 else "delta"
                self.envoys[node] = self.plane.envoy(node, variant)
            await asyncio.gather(*(e.start() for e in self.envoys.values()))
            await asyncio.gather(*(s.ready() for s in self.servers.values()))
        self._print(f"two model servers: blue is {models.KIND['blue']}, green {models.KIND['green']}", start)
        with self.console.status("configuring the Envoys …"):
            manifest = scenario.manifest(self.ports, {version: server.port for version, server in self.servers.items()})
            revision = await self.plane.apply(manifest, reason="start of the demo")
            progress = await self.plane.held(revision, nodes=len(self.ports))
            await asyncio.gather(*(e.ready() for e in self.envoys.values()))
            await asyncio.gather(*(e.listens(self.ports[node]) for node, e in self.envoys.items()))
        self._print(f"control plane with an embedded store, API at {self.plane.api}", start)
        kinds = ", ".join(self.envoys)
        self._print(f"{progress.holding} Envoys ({kinds}; the last one uses state-of-the-world, the others delta)", start)
        self._print(
            f"revision {revision}: a gateway for each Envoy, and the model `{models.NAME}` with all traffic on blue", start
        )

    def _load(self) -> Load:
        body = request(models.data(self.seed).test[:1])
        return Load(scenario.load_groups(self.ports, body, self.stream_seconds), users=self.users)

    # ------------------------------------------------------------------------------------------------------- moves

    async def _move(self, load: Load, old: str, new: str, *command: str) -> Move:
        """Run a command of `turnout`, and watch the load for a while. Errors: UNAVAILABLE if the command fails."""
        text = f"turnout {' '.join(command)}"
        self.console.print(f"\n$ {text}", style="bold")
        arguments = [*self.plane.command, "--api", self.plane.api, *command, "-o", "json", "--timeout", "30"]
        # Its progress bar goes to this terminal (stderr), its receipt is read here.
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
            raise Error(Code.UNAVAILABLE, "MOVE_FAILED", f"`{text}` ended with status {child.returncode}") from None
        for node in sorted(progress["nodes"], key=lambda n: str(n.get("holdTime", "~"))):
            if "holdTime" in node:
                self._print(
                    f"{node['node'].removeprefix('nodes/')} ACKed after {(_seconds(node['holdTime']) - commit) * 1e3:.1f} ms"
                )
        await self._watch_load(load, new)
        accuracy = await self._accuracy(new)
        self._print(f"{new}, {models.KIND[new]}, reads {accuracy:.1%} of the test pictures correctly")
        number = int(answer["revision"]["number"])
        return Move(text, old, new, number, int(progress["holding"]), commit, last_ack, accuracy)

    async def _accuracy(self, version: str) -> float:
        """Return the share of test pictures that a version reads correctly, asked through an Envoy.

        Errors: UNAVAILABLE if there is no answer, INTERNAL if another version answers.
        """
        data = models.data(self.seed)
        url = f"http://127.0.0.1:{next(iter(self.ports.values()))}{scenario.PATH}/infer"
        timeout = aiohttp.ClientTimeout(30)
        async with aiohttp.ClientSession(timeout=timeout) as session, session.post(url, json=request(data.test)) as answer:
            if answer.status != 200:
                raise Error(Code.UNAVAILABLE, "NOT_ANSWERED", f"the answer to the test pictures has status {answer.status}")
            result = await answer.json()
        if result["model_version"] != version:
            raise Error(Code.INTERNAL, "WRONG_VERSION", f"{result['model_version']} answered instead of {version}")
        pairs = list(zip(result["outputs"][0]["data"], data.test_digits.tolist(), strict=True))
        return sum(1 for a, b in pairs if a == b) / len(pairs)

    async def _watch_load(self, load: Load, version: str, min_requests: int = 0) -> None:
        """Wait for some seconds, and until there were `min_requests` requests. Show the load's progress until then."""
        text = f"users send requests, and {version} answers"
        began, first = time.monotonic(), sum(load.progress().values())
        with self.console.status(text) as status:
            while True:
                load.process.check()
                counts, passed = load.progress(), time.monotonic() - began
                if passed >= self.seconds and sum(counts.values()) >= min_requests:
                    break
                answers = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items()))
                status.update(f"{text}: {(sum(counts.values()) - first) / max(passed, 0.1):,.0f} requests/s; so far {answers}")
                await asyncio.sleep(0.2)
        rate = (sum(load.progress().values()) - first) / (time.monotonic() - began)
        self._print(
            f"{text}: {rate:,.0f} requests/s over HTTP/1.1 and HTTP/2, and answers that stream for {self.stream_seconds:g} s"
        )

    # ------------------------------------------------------------------------------------------------------- output

    def _headline(self, text: str) -> None:
        self.console.print(f"turnout demo: {text}", style="bold")

    def _print(self, text: str, since: float | None = None) -> None:
        elapsed = f"  ({time.monotonic() - since:.1f} s)" if since is not None else ""
        self.console.print(f"  {text}{elapsed}")

    def _print_receipt(self, receipt: Receipt) -> None:
        if self.form == "json":
            sys.stdout.write(json.dumps(receipt.as_json(), indent=2) + "\n")
            sys.stdout.flush()
        print_receipt(self.console, receipt)

    async def _keep(self, stack: AsyncExitStack) -> None:
        """Keep everything running until an interrupt."""
        load = self._load()
        stack.push_async_callback(load.close)
        await load.start()
        body = request(models.data(self.seed).test[:1])
        self._headline("everything keeps running, and users keep sending requests. In another terminal try")
        for command in suggestions.commands(self.plane.api, next(iter(self.ports.values())), body):
            self.console.print(f"  {command}")
        for node, envoy in self.envoys.items():
            self.console.print(f"  {node}: listens on 127.0.0.1:{self.ports[node]}, its admin page is http://{envoy.admin}")
        self.console.print("Ctrl-C ends everything.", style="bold")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            # An interrupt is the normal end here, so the exit code is that of the receipt.
            if (task := asyncio.current_task()) is not None:
                task.uncancel()

    async def _close(self) -> None:
        await asyncio.gather(*(e.close() for e in self.envoys.values()))
        await asyncio.gather(self.plane.close(), *(s.close() for s in self.servers.values()))


def _seconds(stamp: str) -> float:
    """Return seconds since the epoch for a time in protojson."""
    parsed = Timestamp()
    parsed.FromJsonString(stamp)
    return parsed.ToNanoseconds() / 1e9
