"""Clients that do the same work: each creates a number of images with a number of tasks in flight.

- `job`: The job that a client gets, and its report
- `ours`: This package
- `by_hand`: aiohttp by hand
- `fal`, `replicate_`, `runway`, `vendor`: Packages of others
"""

from benchmarks.comparison.clients.job import ClientReport, Job

__all__ = ["ClientReport", "Job"]
