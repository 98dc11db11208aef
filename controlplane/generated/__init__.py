"""Stubs generated from `protos/` by `protos/generate`. Do not edit."""
