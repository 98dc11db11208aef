"""Loops that turn desired state into what is served, and what streams report into the fleet."""
