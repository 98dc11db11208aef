"""A server of KServe with one model: `kserve_iris.py VERSION HTTP_PORT GRPC_PORT`. It answers with its version."""

import sys
from typing import Any

from kserve import InferOutput, InferRequest, InferResponse, Model, ModelServer


class Iris(Model):  # type: ignore[misc]  # the package has no types here
    def __init__(self, version: str) -> None:
        super().__init__("iris")
        self.version = version
        self.ready = True

    async def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        if not isinstance(payload, InferRequest):  # protocol v1
            return {"predictions": [self.version]}
        output = InferOutput(self.version, [1], "FP32", [1.0])
        return InferResponse("1", "iris", [output], model_version=self.version)


if __name__ == "__main__":
    version, http_port, grpc_port = sys.argv[1:]
    ModelServer(http_port=int(http_port), grpc_port=int(grpc_port)).start([Iris(version)])
