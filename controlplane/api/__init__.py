"""The operator API: gRPC services that translate between messages of turnout.v1 and the domain, and Envoy's CSDS."""
