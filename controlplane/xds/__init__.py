"""The protocol: subscriptions, SotW, delta. Knows nothing of sockets, clocks or desired state.

This package turns requests and snapshots into responses and events. It is not the server (that is
`xds_server/pump.py`), and it decides nothing about what a node should hold (that is the compiler's).
"""
