"""gRPC: the operator's services, and the xDS pumps. Translation only: nothing is decided here, and nothing is kept."""
