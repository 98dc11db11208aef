"""Call a model with an SDK until the standard input ends. It runs in the environment of the SDK, and imports nothing of ours.

Each answer is a line with the version that gave it, or `FAILED` and the error. A kind of call ends with `-preview` to ask for
the version green. A stream is a line `stream VERSION VERSION …`, when it ends.
"""

import queue
import sys
import threading
import time
from typing import Any

_PREVIEW = {"x-model-version": "green"}
_done = threading.Event()


def triton_http(address: str, headers: Any) -> Any:
    import numpy as np
    import tritonclient.http as triton

    client = triton.InferenceServerClient(address, network_timeout=20, connection_timeout=20)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    assert client.get_server_metadata()["name"]
    assert "iris" in [model["name"] for model in client.get_model_repository_index()]
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32), binary_data=False)  # MLServer reads JSON only
    return lambda: client.infer("iris", [tensor], headers=headers).get_response()["model_version"]


def triton_grpc(address: str, headers: Any) -> Any:
    import numpy as np
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(address)
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("iris")
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
    return lambda: client.infer("iris", [tensor], headers=headers).get_response().model_version


def triton_stream(address: str, headers: Any) -> None:
    """Send a request on one stream every 20 ms."""
    import numpy as np
    import tritonclient.grpc as triton

    client = triton.InferenceServerClient(address)
    tensor = triton.InferInput("x", [1, 4], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 4), np.float32))
    answers: queue.Queue[Any] = queue.Queue()
    client.start_stream(lambda result, error: answers.put(error or result.get_response().model_version), headers=headers)
    seen = []
    while not _done.is_set():
        client.async_stream_infer("iris", [tensor])
        seen.append(str(answers.get(timeout=20)))
        time.sleep(0.02)
    client.stop_stream()
    say("stream " + " ".join(dict.fromkeys(seen)))


def websocket(address: str, headers: Any) -> None:
    """Send a message on one WebSocket every 20 ms, and on a new one each time."""
    from websockets.sync.client import connect

    url = f"ws://{address}/v2/models/iris/stream"
    seen = []
    with connect(url, additional_headers=headers) as stream:
        while not _done.is_set():
            stream.send("x")
            seen.append(str(stream.recv(timeout=20)))
            with connect(url, additional_headers=headers) as single:
                single.send("x")
                say(str(single.recv(timeout=20)))
            time.sleep(0.02)
    say("stream " + " ".join(dict.fromkeys(seen)))


_KINDS = {
    "triton-http": triton_http,
    "triton-grpc": triton_grpc,
    "triton-stream": triton_stream,
    "websocket": websocket,
}


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def call(kind: str, address: str) -> None:
    headers = _PREVIEW if kind.endswith("-preview") else None
    try:
        infer = _KINDS[kind.removesuffix("-preview")](address, headers)
        while infer is not None and not _done.is_set():
            say(str(infer()))
            time.sleep(0.05)
    except Exception as error:  # noqa: BLE001  # whatever an SDK raises is a failed call
        say(f"FAILED {error!r} {error}".replace("\n", " "))


if __name__ == "__main__":
    worker = threading.Thread(target=call, args=(sys.argv[1], sys.argv[2]))
    worker.start()
    sys.stdin.read()
    _done.set()
    worker.join()
