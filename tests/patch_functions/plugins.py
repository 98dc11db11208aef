"""Plug-ins for tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from controlplane.compiler.functions import FunctionCall
from controlplane.patch_functions import Plugin, PluginFunctions, PluginStore

IMPORTS = """\
import os
import random
import socket
import time

from envoy_data_plane.envoy.config.cluster.v3 import Cluster
from envoy_data_plane.envoy.config.listener.v3 import Listener
from envoy_data_plane.envoy.config.route.v3 import RouteConfiguration
"""
CLUSTER = "envoy.config.cluster.v3.Cluster"

# Returns functions with this code as their plug-in.
MakeFunctions = Callable[[str], PluginFunctions]


def plugin_of(code: str) -> Plugin:
    """Return a plug-in with this code after its imports."""
    return Plugin({"team.py": (IMPORTS + code).encode()})


def functions_of(folder: Path, code: str) -> PluginFunctions:
    """Return the functions of a server with a plug-in. The caller closes them."""
    return PluginFunctions(PluginStore(folder), plugin_of(code))


def a_call(functions: PluginFunctions, function: str, settings: str = "{}", body: bytes = b"", kind: str = CLUSTER) -> bytes:
    """Call a function of the installed plug-in."""
    return functions.call(FunctionCall(functions.installed, function, settings, kind, body))
