"""Clients in other languages, generated from the protos."""
