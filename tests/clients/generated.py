"""Clients in other languages: copy one to build/clients, and generate its code from the protos there."""

from __future__ import annotations

import importlib
import shutil
import sys
from pathlib import Path

from tests.tools import run

HERE = Path(__file__).parent
ROOT = HERE.parents[1]


def copied(language: str) -> Path:
    """Copy a client to build/clients, and return the copy. Files that were installed or generated there earlier stay."""
    folder = ROOT / "build" / "clients" / language
    shutil.copytree(HERE / language, folder, dirs_exist_ok=True)  # with times, so that nothing is installed twice
    return folder


def generate(plugin: Path, output: Path, *options: str, annotations: bool = False) -> None:
    """Run a plugin of protoc on the protos. `annotations`: also on those of google/api that they import."""
    google = Path(next(iter(importlib.import_module("google.api").__path__)))
    protos = sorted(str(p.relative_to(ROOT / "protos")) for p in (ROOT / "protos" / "turnout" / "v1").glob("*.proto"))
    if annotations:
        protos += ["google/api/field_behavior.proto", "google/api/resource.proto"]
    name = plugin.name.removeprefix("protoc-gen-")
    output.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "protos"), "-I", str(google.parents[1])]
    command += [f"--plugin={plugin.name}={plugin}", f"--{name}_out={output}", *(f"--{name}_opt={o}" for o in options)]
    run([*command, *protos], ROOT)
