"""An HTTP/2 and gRPC server for asyncio. It depends on nothing else in this project; `README.md` describes it."""
