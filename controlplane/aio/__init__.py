"""Helpers for asyncio: the newest value, work in time slices, the wall clock, the event loop. They import no other module."""
