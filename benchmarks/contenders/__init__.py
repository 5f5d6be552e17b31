"""Clients that do the same work: each makes a number of pictures with a number of tasks in flight."""

from benchmarks.contenders.job import Job, Report

__all__ = ["Job", "Report"]
