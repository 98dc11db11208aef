"""The code of a model in MLflow's format. Its data are a file with its version, which is its only prediction."""

from pathlib import Path
from typing import Any


class _Iris:
    def __init__(self, version: str) -> None:
        self.version = version

    def predict(self, model_input: Any, params: Any = None) -> list[str]:
        return [self.version]


def _load_pyfunc(path: str) -> _Iris:
    """Load the model. MLflow calls this function by its name."""
    return _Iris(Path(path).read_text())
