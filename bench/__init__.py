"""Benchmarks of Turnout, and the servers that it is compared with. `python -m bench` runs all of them.

No other code of the project imports this package. It uses Turnout as an operator and an Envoy do, through sockets.
"""
