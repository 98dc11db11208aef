"""Tests of permissions: values in, values out."""
