"""A program that never outlives the one that starts it, not even when it is stopped (SIGSTOP) or hangs. On Linux only."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Runs before the program proper: the kernel is asked to kill it when the thread that started it ends, however it ends. In a
# process of its own, because code between fork and exec can deadlock where gRPC's threads run. Who started it may have ended
# before the kernel was asked; then its parent is another.
_TIE = (
    "import ctypes,os,signal,sys;"
    "ctypes.CDLL(None).prctl(1,signal.SIGKILL);"  # 1: PR_SET_PDEATHSIG
    "os.getppid()==int(sys.argv[1]) or os._exit(1);"
    "os.execvp(sys.argv[2],sys.argv[2:])"
)


def die_with_parent(command: Sequence[str]) -> list[str]:
    """The command that runs `command`, with the same process id, for as long as the calling process is there.

    Start it from the thread that stays: it ends with that thread. Elsewhere than on Linux it is `command` itself.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _TIE, str(os.getpid()), *command]
