"""Results of a plug-in's functions in a file, so that a server that starts again does not call them again.

The file has a line with the versions of the libraries that took part, then the results, each with a checksum. A file of other
versions is written anew. What follows a damaged result, like one whose writing was cut off, is dropped.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import struct
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path

# The digest of the call, the length of the result, and the checksum of both.
_HEAD = struct.Struct(">16sI8s")
_LIBRARIES = ("envoy-data-plane", "betterproto2")

Result = tuple[bytes, bytes]  # the digest of a call, 16 bytes, and its result


def libraries() -> str:
    """Return the versions that a result depends on, beside the call itself."""
    return " ".join(("1", f"python-{platform.python_version()}", *(f"{name}-{version(name)}" for name in _LIBRARIES)))


class ResultFile:
    """The results of one plug-in. Without a writable disk it is empty: the file only saves time."""

    def __init__(self, path: Path, max_bytes: int) -> None:
        """`max_bytes` bounds the file. An addition beyond it is refused."""
        self._path = path
        self._max_bytes = max_bytes
        self._first_line = f"{libraries()}\n".encode()

    def read(self) -> list[Result]:
        """Return the results, the oldest first, and drop what is damaged or of other versions."""
        try:
            content = self._path.read_bytes()
        except OSError:
            content = b""
        results, at = [], len(self._first_line)
        if not content.startswith(self._first_line):
            self.replace(())
            return []
        while at + _HEAD.size <= len(content):
            key, length, checksum = _HEAD.unpack_from(content, at)
            result = content[at + _HEAD.size : at + _HEAD.size + length]
            if len(result) != length or _checksum(key, result) != checksum:
                break
            results.append((key, result))
            at += _HEAD.size + length
        if at < len(content):
            with contextlib.suppress(OSError):
                os.truncate(self._path, at)
        return results

    def add(self, key: bytes, result: bytes) -> bool:
        """Add a result. Return False if the file is full."""
        record = _record(key, result)
        with contextlib.suppress(OSError), self._path.open("ab") as file:
            if file.tell() + len(record) > self._max_bytes:
                return False
            file.write(record)
        return True

    def replace(self, results: Iterable[Result]) -> None:
        """Write the file anew."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
            with open(os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(self._first_line + b"".join(_record(key, result) for key, result in results))


def _record(key: bytes, result: bytes) -> bytes:
    return _HEAD.pack(key, len(result), _checksum(key, result)) + result


def _checksum(key: bytes, result: bytes) -> bytes:
    return hashlib.blake2b(key + result, digest_size=8).digest()
