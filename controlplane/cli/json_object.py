"""YAML trees as JSON objects, for fields whose content is that of another API, such as Envoy's."""

from __future__ import annotations

from typing import Any

from controlplane.cli.document import BOOLS, NULLS, NUMBER, Mapping, Node, Scalar


def json_object(node: Mapping) -> dict[str, Any]:
    """Return a mapping as a JSON object. Text in quotes stays text."""
    return {key: _value(value) for key, (_, value) in node.entries.items()}


def _value(node: Node) -> Any:
    if isinstance(node, Mapping):
        return json_object(node)
    if not isinstance(node, Scalar):
        return [_value(item) for item in node.items]
    if not node.plain:
        return node.text
    if node.text in NULLS:
        return None
    if node.text in BOOLS:
        return BOOLS[node.text]
    return float(node.text) if NUMBER.fullmatch(node.text) else node.text
