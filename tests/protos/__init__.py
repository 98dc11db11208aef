"""Tests of the protos, and of what is generated from them."""
