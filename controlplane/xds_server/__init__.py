"""The xDS services: one pump a stream, between the protocol cores of `xds` and the transports."""
