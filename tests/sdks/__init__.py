"""SDKs and model servers that people use. Each has a virtual environment of its own, with an older protobuf."""
