"""The xDS protocol: requests and snapshots become responses and events.

Subscriptions, state of the world and delta, without sockets and clocks. The server around it is `xds_server/`; which content a
node should hold is decided by `compiler/`.
"""
