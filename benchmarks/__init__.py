"""Measurements that anyone can repeat.

- `runner`: ``python -m benchmarks`` runs the suite, prints the figures, and saves them as JSON and PNG
- `suite`: One module per measurement; ``python -m benchmarks.suite.NAME`` runs one alone
- `soak`: Long runs that check that nothing is lost or billed twice: ``python -m benchmarks.soak.NAME``
- `comparison`: The same work done by other clients (`peers`), or by two revisions of this package (`revisions`)
- `servers`: The servers that the measurements run against
- `support`: Stopwatches, thresholds, plots, and server processes
"""
