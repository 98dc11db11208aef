"""The server's side of functions: two child processes for each plug-in that is in use, and the results so far."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path
from threading import Lock

from controlplane.compiler.functions import FunctionCall, FunctionFailed, Functions
from controlplane.errors import escaped
from controlplane.patch_functions import frames, sandbox
from controlplane.patch_functions.plugin import Plugin, PluginStore
from controlplane.patch_functions.results import ResultFile

# Seconds in which a child must have imported its plug-in.
_START = 30.0
# Seconds that a child may take for an answer more than a call.
_MARGIN = 5.0
# Pairs of processes that run at a time. The one that was used longest ago ends.
_PAIRS = 4
# Bytes of results that are remembered. The oldest are forgotten. The file of a plug-in's results may be twice as large.
_RESULTS = 32 << 20
_DONE = b"+"


class Child:
    """A process that calls the functions of one plug-in."""

    def __init__(self, directory: Path) -> None:
        """Start it. The caller waits for `result`, whose errors say why the plug-in can't be imported."""
        environment = {"PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(p or "." for p in sys.path), "LC_ALL": "C.UTF-8"}
        # The server's environment may have secrets.
        self._process = subprocess.Popen(
            [sys.executable, "-B", "-m", "controlplane.patch_functions.child", str(directory.absolute())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=environment,
            start_new_session=True,  # Ctrl-C ends the server, which then ends the child
        )

    def send(self, call: FunctionCall) -> None:
        """Ask for the result of a call. Errors: FunctionFailed."""
        asked = {"function": call.function, "settings": call.settings, "message_type": call.message_type}
        try:
            frames.send(self._stdin, json.dumps(asked).encode(), call.body)
        except OSError:
            self.close()
            raise FunctionFailed("can't be called: the process of the plug-in has ended; try again") from None

    @property
    def running(self) -> bool:
        """True until the process has ended."""
        return self._process.poll() is None

    @property
    def _stdin(self) -> int:
        assert self._process.stdin is not None
        return self._process.stdin.fileno()

    def close(self) -> None:
        """End the process."""
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.kill()
        self._process.wait()

    def result(self, seconds: float = sandbox.CLOCK_SECONDS + _MARGIN, job: str = "answer") -> bytes:
        """Return the result of the call that was sent. Errors: FunctionFailed."""
        assert self._process.stdout is not None
        try:
            answer = frames.receive(self._process.stdout.fileno(), seconds)
        except OSError as error:
            self.close()
            reason = f"in {seconds:g} s" if isinstance(error, frames.TooLate) else "before it ended"
            raise FunctionFailed(f"can't be called: the process of the plug-in did not {job} {reason}") from None
        if answer[:1] != _DONE:
            raise FunctionFailed(escaped(answer[1:].decode(errors="replace")))
        return answer[1:]


class Pair:
    """Two processes of one plug-in, which both make each call. If their results differ, the function is not pure.

    In one process, a value from the import, like the time, or from the process, like its id, would be the same in every call.
    """

    def __init__(self, directory: Path) -> None:
        """Start them. Errors: FunctionFailed if they can't import the plug-in."""
        self._children = (Child(directory), Child(directory))
        try:
            for child in self._children:
                child.result(_START, "import the plug-in")
        except FunctionFailed:
            self.close()
            raise

    def call(self, call: FunctionCall) -> bytes:
        """Return the result of a call. Errors: FunctionFailed."""
        results = []
        try:
            for child in self._children:
                child.send(call)
        except FunctionFailed:
            self.close()  # one of them may have an answer that nobody reads
            raise
        errors = []
        for child in self._children:
            try:
                results.append(child.result())
            except FunctionFailed as error:
                errors.append(error)
        if errors:
            raise errors[0]
        if results[0] != results[1]:
            raise FunctionFailed(
                "gives two results for the same arguments, but must be pure: no time, no random numbers, no state"
            )
        return results[0]

    @property
    def running(self) -> bool:
        """True until one of the processes has ended."""
        return all(child.running for child in self._children)

    def close(self) -> None:
        """End the processes."""
        for child in self._children:
            child.close()


class PluginFunctions(Functions):
    """Calls the functions of all plug-ins of which there is a copy. Several threads may use it; one calls at a time."""

    def __init__(self, store: PluginStore, plugin: Plugin | None) -> None:
        """`plugin` is the installed one, of which a copy is added. Errors: OSError."""
        self._store = store
        # The hash of the installed plug-in; "" if there is none.
        self.installed = plugin.hash if plugin is not None else ""
        if plugin is not None:
            store.add(plugin)
        # Held during a call. A result that is known does not wait for it.
        self._lock = Lock()
        # By hash, the one that was used last at the end.
        self._pairs: OrderedDict[str, Pair] = OrderedDict()
        # By hash and digest of the call. A function is pure, so a result stays right.
        self._results: OrderedDict[tuple[str, bytes], bytes] = OrderedDict()
        self._size = 0
        # By hash: the files of the results of plug-ins of which there is a copy. They have been read.
        self._files: dict[str, ResultFile] = {}

    def call(self, call: FunctionCall) -> bytes:
        """Return the result of a call. Errors: FunctionFailed, whose text names the function."""
        key = call.hash, _digest(call)
        if (known := self._results.get(key)) is not None:
            return known
        with self._lock:
            try:
                file = self._file(call.hash)
                if (result := self._results.get(key)) is None:
                    result = self._pair(call.hash).call(call)
                    self._keep(key, result)
                    if not file.add(key[1], result):
                        file.replace((digest, r) for (plugin, digest), r in self._results.items() if plugin == call.hash)
            except FunctionFailed as error:
                raise FunctionFailed(f"the function '{call.function}' {error}") from None
            return result

    def close(self) -> None:
        """End all processes."""
        with self._lock:
            for pair in self._pairs.values():
                pair.close()
            self._pairs.clear()

    def _file(self, plugin: str) -> ResultFile:
        """Return the file of a plug-in's results. Errors: FunctionFailed if there is no copy of the plug-in."""
        file = self._files.get(plugin)
        if file is None:
            if self._store.find(plugin) is None:
                raise FunctionFailed(self._unknown(plugin))
            file = self._files[plugin] = ResultFile(self._store.results(plugin), 2 * _RESULTS)
            for digest, result in file.read():
                self._keep((plugin, digest), result)
        return file

    def _pair(self, plugin: str) -> Pair:
        pair = self._pairs.get(plugin)
        if pair is not None and pair.running:
            self._pairs.move_to_end(plugin)
            return pair
        if pair is not None:
            pair.close()
        directory = self._store.find(plugin)
        if directory is None:
            raise FunctionFailed(self._unknown(plugin))
        while len(self._pairs) >= _PAIRS:
            self._pairs.popitem(last=False)[1].close()
        self._pairs[plugin] = pair = Pair(directory)
        return pair

    def _unknown(self, plugin: str) -> str:
        known = f"the installed one has {self.installed}" if self.installed else "none is installed"
        return (
            f"is of the plug-in with the hash {plugin}, of which this server has no copy; {known}. Start the server with that "
            "plug-in, or apply the object without a hash"
        )

    def _keep(self, key: tuple[str, bytes], result: bytes) -> None:
        self._results[key] = result
        self._size += len(result)
        while self._size > _RESULTS:
            self._size -= len(self._results.popitem(last=False)[1])


def _digest(call: FunctionCall) -> bytes:
    parts = [part.encode() for part in (call.hash, call.function, call.settings, call.message_type)]
    return hashlib.blake2b(b"".join(b"%d:%b" % (len(p), p) for p in (*parts, call.body)), digest_size=16).digest()
