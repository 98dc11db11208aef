"""Write the JSON Schema: `python -m controlplane.cli.schema`, from the repository's root. `--check` only compares."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

import google.api
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc

from controlplane.cli.schema import FILE
from controlplane.cli.schema.generate import generate

_PROTO = "turnout/v1/revision_service.proto"


def compiled(protos: Path, pattern: str = _PROTO) -> FileDescriptorSet:
    """Return the protos that match a pattern and what they import, with their comments."""
    includes = Path(protoc.__file__).parent / "_proto"
    annotations = Path(next(iter(google.api.__path__))).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "protos"
        arguments = [
            "protoc",
            f"-I{protos}",
            f"-I{includes}",
            f"-I{annotations}",
            "--include_source_info",
            "--include_imports",
        ]
        files = map(str, sorted(protos.glob(pattern)))
        if protoc.main([*arguments, f"--descriptor_set_out={out}", *files]):
            raise SystemExit("protoc failed")
        return FileDescriptorSet.FromString(out.read_bytes())


def rendered(protos: Path) -> str:
    """Return the text of the schema."""
    return json.dumps(generate(compiled(protos)), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    text = rendered(Path("protos"))
    if "--check" not in sys.argv:
        FILE.write_text(text, encoding="utf-8")
    elif FILE.read_text(encoding="utf-8") != text:
        raise SystemExit(f"{FILE.name} differs from the protos: run `make protos`")
