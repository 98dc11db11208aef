"""Attacks on the ports of `turnout serve`: a table of what one client can send, and what a healthy client notices of it."""
