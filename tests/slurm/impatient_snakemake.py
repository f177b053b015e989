"""Snakemake's command line, looking after its SLURM jobs every second.

The plugin waits longer and longer between two looks, up to three minutes, as it should on a shared
controller. Here it would make up most of the test's time.
"""

import asyncio

from snakemake.cli import main
from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor


async def sleep(self: RemoteExecutor) -> None:
    await asyncio.sleep(1)


RemoteExecutor.sleep = sleep

if __name__ == "__main__":
    main()
