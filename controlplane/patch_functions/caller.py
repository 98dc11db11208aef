"""The server's side of functions: a child process for each plug-in that is in use, and the results so far."""

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
# Children that run at a time. The one that was used longest ago ends.
_CHILDREN = 4
# Bytes of results that are remembered. The oldest are forgotten. The file of a plug-in's results may be twice as large.
_RESULTS = 32 << 20
_DONE = b"+"


class Child:
    """A process that calls the functions of one plug-in."""

    def __init__(self, directory: Path) -> None:
        """Start it. Errors: FunctionFailed if it can't import the plug-in."""
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
        self._answer(_START, "import the plug-in")

    def call(self, call: FunctionCall) -> bytes:
        """Return the result of a call. Errors: FunctionFailed."""
        asked = {"function": call.function, "settings": call.settings, "message_type": call.message_type}
        try:
            frames.send(self._stdin, json.dumps(asked).encode(), call.body)
        except OSError:
            self.close()
            raise FunctionFailed("can't be called: the process of the plug-in has ended; try again") from None
        return self._answer(sandbox.CLOCK_SECONDS + _MARGIN, "answer")

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

    def _answer(self, seconds: float, job: str) -> bytes:
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
        self._children: OrderedDict[str, Child] = OrderedDict()
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
                    result = self._child(call.hash).call(call)
                    self._keep(key, result)
                    if not file.add(key[1], result):
                        file.replace((digest, r) for (plugin, digest), r in self._results.items() if plugin == call.hash)
            except FunctionFailed as error:
                raise FunctionFailed(f"the function '{call.function}' {error}") from None
            return result

    def close(self) -> None:
        """End all children."""
        with self._lock:
            for child in self._children.values():
                child.close()
            self._children.clear()

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

    def _child(self, plugin: str) -> Child:
        child = self._children.get(plugin)
        if child is not None and child.running:
            self._children.move_to_end(plugin)
            return child
        directory = self._store.find(plugin)
        if directory is None:
            raise FunctionFailed(self._unknown(plugin))
        while len(self._children) >= _CHILDREN:
            self._children.popitem(last=False)[1].close()
        self._children[plugin] = child = Child(directory)
        return child

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
