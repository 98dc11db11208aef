"""Call a model with SDKs until the standard input ends. It runs in the environment of the SDKs, and imports nothing of ours.

The arguments are `KIND=ADDRESS`, each called by a thread of its own: first as it is, then with the header that asks for a
preview of green. It writes these lines:

    KIND VERSION                    an answer
    KIND-preview VERSION            an answer to a call with the header
    KIND stream                     a stream has its first answer
    KIND stream VERSION VERSION …   a stream has ended: the versions that answered on it
    KIND FAILED …                   a traceback
"""

import asyncio
import json
import queue
import sys
import threading
import time
import traceback
from typing import Any

_PREVIEW = {"x-model-version": "green"}
_done = threading.Event()


def say(line: str) -> None:
    sys.stdout.write(line.replace("\n", " ") + "\n")
    sys.stdout.flush()


def repeat(kind: str, infer: Any) -> None:
    """Call `infer` with headers, or None, until the end. It returns the version that answered."""
    while not _done.is_set():
        say(f"{kind} {infer(None)}")
        say(f"{kind}-preview {infer(dict(_PREVIEW))}")
        time.sleep(0.02)


class Stream:
    """The versions that answered on a stream."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._versions: dict[str, None] = {}

    def answered(self, version: str) -> None:
        if not self._versions:
            say(f"{self._kind} stream")
        self._versions[version] = None

    def end(self) -> None:
        say(f"{self._kind} stream " + " ".join(self._versions))


# ------------------------------------------------------------------------------------------ tritonclient, WebSockets, HTTP


def triton_http(kind: str, address: str, binary: bool = True) -> None:
    import numpy as np
    import tritonclient.http as triton

    client = triton.InferenceServerClient(address, network_timeout=20, connection_timeout=20)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert client.get_server_metadata()["name"]
    assert "iris" in [model["name"] for model in client.get_model_repository_index()]
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32), binary_data=binary)
    repeat(kind, lambda headers: client.infer("iris", [tensor], headers=headers).get_response()["model_version"])


def triton_http_json(kind: str, address: str) -> None:
    """Send tensors as JSON: MLServer does not read others over HTTP."""
    triton_http(kind, address, binary=False)


def _triton_grpc(address: str) -> Any:
    """Return a client and a tensor."""
    import numpy as np
    import tritonclient.grpc as triton

    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
    return triton.InferenceServerClient(address), tensor


def triton_grpc(kind: str, address: str) -> None:
    client, tensor = _triton_grpc(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    repeat(kind, lambda headers: client.infer("iris", [tensor], headers=headers).get_response().model_version)


def triton_stream(kind: str, address: str) -> None:
    """Send a request on one stream every 20 ms."""
    client, tensor = _triton_grpc(address)
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result.get_response().model_version))
    stream = Stream(kind)
    while not _done.is_set():
        client.async_stream_infer("iris", [tensor])
        stream.answered(str(answers.get(timeout=20)))
        time.sleep(0.02)
    client.stop_stream()
    stream.end()


def mlserver_stream(kind: str, address: str) -> None:
    """Send a request on one stream every 20 ms, with `grpcio`: MLServer's answers are other messages than Triton's."""
    import grpc
    from tritonclient.grpc import service_pb2 as pb

    tensor = pb.ModelInferRequest.InferInputTensor(name="x", datatype="FP32", shape=[1])
    tensor.contents.fp32_contents.append(0.0)

    def requests() -> Any:
        while not _done.is_set():
            yield pb.ModelInferRequest(model_name="iris", inputs=[tensor])
            time.sleep(0.02)

    stream = Stream(kind)
    with grpc.insecure_channel(address) as channel:
        serialize, parse = pb.ModelInferRequest.SerializeToString, pb.ModelInferResponse.FromString
        infer = channel.stream_stream("/inference.GRPCInferenceService/ModelStreamInfer", serialize, parse)
        for answer in infer(requests()):
            stream.answered(answer.model_version)
    assert _done.is_set(), "the stream ended early"
    stream.end()


def generate_stream(kind: str, address: str) -> None:
    """Read server-sent events of one request, which never ends by itself."""
    import urllib3

    tensor = {"name": "endless", "shape": [1], "datatype": "FP32", "data": [0.0]}
    url = f"http://{address}/v2/models/iris/generate_stream"
    response = urllib3.request("POST", url, json={"inputs": [tensor]}, preload_content=False, timeout=20)
    stream, text = Stream(kind), b""
    for chunk in response.stream(1, decode_content=False):
        *events, text = (text + chunk).split(b"\n\n")
        for event in events:
            stream.answered(json.loads(event.removeprefix(b"data: "))["model_version"])
        if _done.is_set():
            break
    response.close()
    assert _done.is_set(), "the stream ended early"
    stream.end()


def websocket(kind: str, address: str) -> None:
    """Send a message on one WebSocket every 20 ms, and on a new one each time."""
    from websockets.sync.client import connect

    url = f"ws://{address}/v2/models/iris/stream"
    stream = Stream(kind)

    def single(headers: Any) -> str:
        # Envoy closes a connection 1 s after its WebSocket; don't wait for that.
        with connect(url, additional_headers=headers, close_timeout=0.05) as socket:
            socket.send("x")
            answer = str(socket.recv(timeout=20))
        long.send("x")
        stream.answered(str(long.recv(timeout=20)))
        return answer

    with connect(url) as long:
        repeat(kind, single)
    stream.end()


# --------------------------------------------------------------------------------------------------------- KServe, MLflow


def kserve_http(kind: str, address: str) -> None:
    asyncio.run(_kserve_http(kind, f"http://{address}", "v2"))


def kserve_v1(kind: str, address: str) -> None:
    asyncio.run(_kserve_http(kind, f"http://{address}", "v1"))


async def _kserve_http(kind: str, url: str, protocol: str) -> None:
    from kserve import InferenceRESTClient, RESTConfig

    async with InferenceRESTClient(RESTConfig(protocol=protocol)) as client:
        assert await client.is_server_live(url)
        if protocol == "v2":
            assert await client.is_server_ready(url)
        assert await client.is_model_ready(url, "iris")
        request: Any = _kserve_request() if protocol == "v2" else {"instances": [0]}

        async def infer(headers: Any) -> str:
            # The client leaves out `model_version`. The servers' only output is named after the version, too.
            answer: Any = await client.infer(url, request, model_name="iris", headers=headers)
            return str(answer.outputs[0].name if protocol == "v2" else answer["predictions"][0])

        await _repeat_async(kind, infer)


def kserve_grpc(kind: str, address: str) -> None:
    asyncio.run(_kserve_grpc(kind, address))


async def _kserve_grpc(kind: str, address: str) -> None:
    from kserve import InferenceGRPCClient

    async with InferenceGRPCClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("iris")

        async def infer(headers: Any) -> str:
            answer = await client.infer(_kserve_request(), headers=tuple(headers.items()) if headers else None)
            return str(answer.model_version)

        await _repeat_async(kind, infer)


def _kserve_request() -> Any:
    from kserve import InferInput, InferRequest

    return InferRequest("iris", [InferInput("x", [1, 4], "FP32", [0.0] * 4)])


async def _repeat_async(kind: str, infer: Any) -> None:
    while not _done.is_set():
        say(f"{kind} {await infer(None)}")
        say(f"{kind}-preview {await infer(dict(_PREVIEW))}")
        await asyncio.sleep(0.02)


def mlflow_header(kind: str, address: str) -> None:
    _mlflow(kind, address, {"x-model": "iris"})


def mlflow_host(kind: str, address: str) -> None:
    _mlflow(kind, address, {})


def _mlflow(kind: str, address: str, common: Any) -> None:
    """Call MLflow's scoring server with `requests`. Its paths name no model, so each request has `common` headers."""
    import requests

    with requests.Session() as session:
        session.headers.update(common)
        for path in ("ping", "health", "version"):
            session.get(f"http://{address}/{path}", timeout=20).raise_for_status()

        def infer(headers: Any) -> str:
            body = {"inputs": [[0.0] * 4]}
            answer = session.post(f"http://{address}/invocations", json=body, headers=headers, timeout=20)
            answer.raise_for_status()
            return str(answer.json()["predictions"][0])

        repeat(kind, infer)


def call(kind: str, address: str) -> None:
    try:
        globals()[kind.replace("-", "_")](kind, address)
    except Exception:  # noqa: BLE001  # whatever an SDK raises is a failed call
        say(f"{kind} FAILED {traceback.format_exc()}")


if __name__ == "__main__":
    threads = [threading.Thread(target=call, args=argument.split("=")) for argument in sys.argv[1:]]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    _done.set()
    for thread in threads:
        thread.join()
