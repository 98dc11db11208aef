"""`python -m controlplane.patch_functions.child DIRECTORY`: calls the functions of one plug-in, whose copy is in DIRECTORY.

The child imports the plug-in once. Each call is made by a process of its own, a fork: so no call can leave anything for the
next one. The server has two children for each plug-in, and compares their results.

It reads calls from its stdin and writes the results to its stdout, and ends when stdin closes.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import linecache
import os
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import FunctionType, ModuleType, TracebackType
from typing import Any, get_type_hints

from controlplane.patch_functions import frames, sandbox

# By the full name of a message: the module of its class.
_MODULES = {
    "envoy.config.listener.v3.Listener": "envoy_data_plane.envoy.config.listener.v3",
    "envoy.config.route.v3.RouteConfiguration": "envoy_data_plane.envoy.config.route.v3",
    "envoy.config.cluster.v3.Cluster": "envoy_data_plane.envoy.config.cluster.v3",
}
DONE, FAILED = b"+", b"-"
_MAX_TEXT = 1_000
# First calls with each message before which the classes in it are made.
_WARM_UP = 4

Function = Callable[[Any, Any], Any]
# By name: the type that a function takes, and the function.
Functions = Mapping[str, tuple[type, Function]]


class CallFailed(Exception):
    """A call can't be made, or its result can't be used. The text says why."""


def import_all(directory: Path) -> list[ModuleType]:
    """Import the modules of the plug-in, in the order of their names. Errors: whatever they raise."""
    sys.path.insert(0, str(directory))
    names = sorted(p.name.removesuffix(".py") for p in directory.iterdir() if p.suffix == ".py" or p.is_dir())
    return [importlib.import_module(name) for name in names]


def functions_of(modules: Iterable[ModuleType]) -> Functions:
    """Return the functions of the plug-in by name, each with the message that it takes. Errors: CallFailed.

    They are those that are written in the plug-in, and whose first parameter is one of the messages that patches change.
    """
    modules, found = list(modules), dict[str, tuple[type, Function]]()
    own = {module.__name__ for module in modules}
    for module in modules:
        for name, value in vars(module).items():
            if name.startswith("_") or not isinstance(value, FunctionType) or value.__module__.partition(".")[0] not in own:
                continue
            taken = _taken(value)
            if taken is not None and found.setdefault(name, (taken, value))[1] is not value:
                raise CallFailed(f"has two functions '{name}'")
    return found


def find(functions: Functions, name: str, kind: type) -> Function:
    """Return the function that takes a `kind`. Errors: CallFailed."""
    if name not in functions:
        raise CallFailed(f"is not in the plug-in; there are: {_listed(functions)}")
    taken, function = functions[name]
    if taken is not kind:
        raise CallFailed(f"takes a {taken.__name__}, but patches of this object change a {kind.__name__}")
    return function


def _listed(functions: Functions) -> str:
    names = sorted(functions)
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    return f"{', '.join(names[:20]) or 'none'}{more}. A function's first parameter must have the type of a message"


def _taken(function: FunctionType) -> type | None:
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError, AttributeError):
        return None
    first = next((hint for name, hint in hints.items() if name != "return"), None)
    return next((kind for kind in _kinds() if kind is first), None)


def _kinds() -> list[type]:
    return [_kind(name) for name in _MODULES]


def _kind(message_type: str) -> Any:
    module = importlib.import_module(_MODULES[message_type])
    return vars(module)[message_type.rpartition(".")[2]]


def call(function: Function, kind: Any, body: bytes, settings: str) -> bytes:
    """Return the result of a function, serialised. Errors: CallFailed; whatever the function raises."""
    result = function(kind.parse(body), json.loads(settings))
    if not isinstance(result, kind):
        raise CallFailed(f"must return a {kind.__name__}, but returned a {type(result).__name__}")
    return bytes(result)


def described(error: BaseException, directory: Path) -> str:
    """Return the last line of an error's traceback, and the place in the plug-in that it is from."""
    text = " ".join(f"{type(error).__name__}: {error}".split())[:_MAX_TEXT].removesuffix(":")
    place, traceback = "", error.__traceback__
    while traceback is not None:
        place = _place(traceback, directory) or place
        traceback = traceback.tb_next
    return f"{text}{place}"


def _place(traceback: TracebackType, directory: Path) -> str:
    code, line = traceback.tb_frame.f_code, traceback.tb_lineno
    if not code.co_filename.startswith(f"{directory}{os.sep}"):
        return ""
    # A call can't read files: the lines were read when the plug-in was imported.
    cached: Any = linecache.cache.get(code.co_filename)
    lines = cached[2] if cached else []
    source = f": {lines[line - 1].strip()}" if line <= len(lines) else ""
    return f" ({os.path.relpath(code.co_filename, directory)}, line {line}, in {code.co_name}{source})"


def warm_up(message: Any) -> None:
    """Serialise a message and all that is packed in it, so that the classes of their fields exist before the forks.

    The library makes them when they are first used, which takes longer than everything else in a call.
    """
    bytes(message)
    for name in message.__dataclass_fields__:
        value: Any = getattr(message, name, None)
        item: Any
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else (value,):
            if hasattr(item, "type_url") and hasattr(item, "unpack"):
                with contextlib.suppress(Exception):  # a type that no module of the plug-in imports
                    item = item.unpack()
            if hasattr(item, "__dataclass_fields__"):
                warm_up(item)


def run_call(functions: Functions, directory: Path, header: bytes, body: bytes) -> bytes:
    """Make a call in a process of its own. Return DONE and the message, or FAILED and a text."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.closerange(0, writing)
        os.closerange(writing + 1, 256)
        try:
            frames.send(writing, _answer(functions, directory, header, body))
        finally:
            os._exit(0)
    os.close(writing)
    try:
        answer = frames.receive(reading, sandbox.CLOCK_SECONDS)
    except frames.TooLate:
        answer = FAILED + f"took more than {sandbox.CLOCK_SECONDS:g} s".encode()
    except OSError:
        answer = b""
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return answer or FAILED + _ended(status).encode()


def _answer(functions: Functions, directory: Path, header: bytes, body: bytes) -> bytes:
    try:
        asked = json.loads(header)
        kind = _kind(asked["message_type"])
        function = find(functions, asked["function"], kind)
        sandbox.limit_call()
        return DONE + call(function, kind, body, asked["settings"])
    except CallFailed as error:
        return FAILED + str(error).encode()
    except MemoryError as error:
        return FAILED + f"needs more than {sandbox.MEMORY >> 20} MiB: {described(error, directory)}".encode()
    except BaseException as error:  # noqa: BLE001 - whatever a plug-in raises is reported
        return FAILED + f"failed: {described(error, directory)}".encode(errors="replace")


def _ended(status: int) -> str:
    if -status in (signal.SIGXCPU, signal.SIGKILL):
        return f"took more than {sandbox.CPU_SECONDS} s of CPU time"
    return f"ended its process, with {signal.Signals(-status).name if status < 0 else f'status {status}'}"


def main() -> None:
    """Serve calls until stdin closes."""
    directory = Path(sys.argv[1])
    answers, null = os.dup(1), os.open(os.devnull, os.O_RDWR)
    for fd in (1, 2):  # what a plug-in prints must not come between the answers
        os.dup2(null, fd)
    try:
        _kinds()
        sandbox.limit_child()
        functions = functions_of(import_all(directory))
        for path in directory.rglob("*.py"):
            linecache.getlines(str(path))
    except BaseException as error:  # noqa: BLE001 - whatever a plug-in raises is reported
        frames.send(answers, FAILED + f"the plug-in can't be imported: {described(error, directory)}".encode(errors="replace"))
        return
    gc.freeze()  # calls then write to fewer pages that they share with this process
    frames.send(answers, DONE)
    calls: Counter[str] = Counter()
    while True:
        try:
            header = frames.receive(0)
            body = frames.receive(0)
        except frames.Closed:
            return
        message_type = json.loads(header)["message_type"]
        calls[message_type] += 1
        if calls[message_type] <= _WARM_UP:
            warm_up(_kind(message_type).parse(body))
        frames.send(answers, run_call(functions, directory, header, body))


if __name__ == "__main__":
    main()
