"""What is measured, how to run it, and what it is measured against. `python -m bench` runs everything.

Nothing of the project imports it, and it sees Turnout as an operator and an Envoy do: through their sockets.
"""
