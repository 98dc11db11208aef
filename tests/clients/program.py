"""Run a client's program beside the server."""

from __future__ import annotations

import asyncio


async def output_of(*command: str) -> str:
    """Run a program, and return its standard output. Fail if its exit code is not 0, or after a minute."""
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        output, errors = await process.communicate()
    assert process.returncode == 0, errors.decode()[-2_000:]
    return output.decode()
