"""YAML as JSON objects."""

from __future__ import annotations

from controlplane.cli.document import Mapping, documents
from controlplane.cli.json_object import json_object

TEXT = """
text: a b
quoted: "1"
number: 9000
fraction: 0.5
negative: -3
yes: true
nothing: null
list: [1, {a: ~}]
"@type": x
"""


def test_scalars_have_the_type_that_yaml_gives_them() -> None:
    (document,) = documents(TEXT, "a.yaml")
    assert isinstance(document, Mapping)
    assert json_object(document) == {
        "text": "a b",
        "quoted": "1",
        "number": 9000,
        "fraction": 0.5,
        "negative": -3,
        "yes": True,
        "nothing": None,
        "list": [1, {"a": None}],
        "@type": "x",
    }
