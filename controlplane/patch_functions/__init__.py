"""Functions of plug-ins that patch compiled resources, called in child processes.

    plugin.py    the files of a plug-in, their hash, and the copies of all plug-ins that the server ever had
    caller.py    the server's side: two children for each plug-in, limits on the time, and the results so far
    results.py   the results in a file, for the next start of the server
    child.py     the child: imports a copy, and calls each function in a process of its own
    sandbox.py   what a call may use: memory, CPU time, system calls
    frames.py    the bytes between server and child

A function always runs from the copy in the data directory. So files that change under a running server change nothing, and
a server that was started with a new plug-in still serves the revisions that name the one before.
"""

from __future__ import annotations

from controlplane.patch_functions.caller import PluginFunctions
from controlplane.patch_functions.plugin import Plugin, PluginStore, installed
from controlplane.patch_functions.sandbox import unenforced

__all__ = ["Plugin", "PluginFunctions", "PluginStore", "installed", "unenforced"]
