"""Tests of who may do what: values in, values out."""
