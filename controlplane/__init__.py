"""Turnout: a control plane that moves the traffic of ML models from blue to green."""
