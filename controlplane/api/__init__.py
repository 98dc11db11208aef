"""The operator API: gRPC services that translate between messages and the domain."""
