"""A model for MLServer. It answers with its version, and without end if the input is called `endless`."""

import asyncio
from collections.abc import AsyncIterator

from mlserver import MLModel
from mlserver.types import InferenceRequest, InferenceResponse, ResponseOutput


class Iris(MLModel):  # type: ignore[misc]  # the package has no types here
    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        output = ResponseOutput(name=self.version, datatype="FP32", shape=[1], data=[1.0])
        return InferenceResponse(model_name=self.name, model_version=self.version, outputs=[output])

    async def predict_stream(self, payloads: AsyncIterator[InferenceRequest]) -> AsyncIterator[InferenceResponse]:
        async for payload in payloads:
            yield await self.predict(payload)
            while payload.inputs[0].name == "endless":
                await asyncio.sleep(0.02)
                yield await self.predict(payload)
