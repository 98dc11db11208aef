"""Make a program end when the process that started it ends, even if the program is stopped (SIGSTOP) or hangs. Linux only."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

# Runs in the new process before the program: asks the kernel to kill the process when the thread that started it ends. It is a
# program of its own because Python code between fork and exec can deadlock while gRPC's threads run. The parent may have ended
# before the kernel was asked; then the process has another parent, and exits.
_WRAPPER = (
    "import ctypes,os,signal,sys;"
    "ctypes.CDLL(None).prctl(1,signal.SIGKILL);"  # 1: PR_SET_PDEATHSIG
    "os.getppid()==int(sys.argv[1]) or os._exit(1);"
    "os.execvp(sys.argv[2],sys.argv[2:])"
)


def die_with_parent(command: Sequence[str]) -> list[str]:
    """Return a command that runs `command`, under the same process id, for as long as the calling process exists.

    Run it from a thread that lives as long as the process: the program ends with that thread. On other systems than Linux,
    return `command` itself.
    """
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-I", "-S", "-c", _WRAPPER, str(os.getpid()), *command]
