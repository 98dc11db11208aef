"""Real Envoys, a real model and real load, for `turnout demo`, the tests and the benchmarks.

The server never imports this package.
"""
