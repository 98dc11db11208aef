"""Helpers around asyncio: the newest value of something, work in time slices, the wall clock, the event loop."""
