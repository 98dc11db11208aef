"""Tests of the conversions between nouns and messages."""
