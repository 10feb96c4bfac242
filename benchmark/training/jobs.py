"""Runs as jobs: processes of ``benchmark.run``, some at a time; what is done is not run again."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from rich.progress import Progress

from ..cli import console
from ..config import RunConfig
from ..records import Summary
from .identity import finished


@dataclasses.dataclass(frozen=True)
class Job:
    """A run. ``variant``: the row of the tables that it belongs to; ``point``: its place on a grid.

    params: the profile that the run is a cell of; without one the run is told everything.
    """

    variant: str
    config: RunConfig
    out: Path
    point: str = ""
    params: Path | None = None
    folder: Path | None = None

    @property
    def where(self) -> Path:
        return self.folder or self.config.folder(self.out)

    def command(self) -> list[str]:
        config = self.config
        line = [sys.executable, "-m", "benchmark.run", "--suite", config.suite, "--reward", config.reward]
        line += ["--seed", str(config.seed), "--device", config.device, "--out", str(self.out)]
        if self.params is not None:
            return [*line, "--method", self.variant, "--params", str(self.params), "--replace"]
        line += ["--method", config.method, "--budget", config.budget]
        return line + [word for override in config.overrides() for word in ("--set", override)]

    def result(self) -> Summary | None:
        return finished(self.where, self.config)


def run_jobs(jobs: list[Job], at_once: int, after: Callable[[Job], None] = lambda job: None) -> int:
    """Run the jobs that are not done, some at once; how many failed. ``after`` is called with each that is done."""
    environment = os.environ | {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // at_once))}

    def launch(job: Job) -> subprocess.CompletedProcess:
        return subprocess.run(job.command(), env=environment, capture_output=True, text=True, check=False)

    todo, failed = [job for job in jobs if job.result() is None], 0
    for job in (job for job in jobs if job not in todo):
        after(job)
    with Progress(console=console) as progress, ThreadPoolExecutor(at_once) as pool:
        task = progress.add_task("runs", total=len(jobs), completed=len(jobs) - len(todo))
        running = {pool.submit(launch, job): job for job in todo}
        try:
            for future in as_completed(running):
                job, result = running[future], future.result()
                progress.advance(task)
                if job.result() is not None:
                    after(job)
                name = f"{job.variant} {job.config.reward} seed {job.config.seed}"
                if result.returncode:
                    failed += 1
                    last = (result.stderr.strip() or result.stdout.strip()).splitlines()[-1:]
                    console.print(f"{name}: exit {result.returncode} {last}")
                elif not console.is_terminal:
                    console.print(f"{len(jobs) - len(todo) + sum(f.done() for f in running)}/{len(jobs)}  {name}")
        except KeyboardInterrupt:
            pool.shutdown(cancel_futures=True)  # the running ones saw the interrupt too, and stop at a checkpoint
            raise
    return failed
