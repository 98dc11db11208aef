"""An HTTP/2 server that speaks gRPC: frames, headers, connections, streams and gRPC messages."""
