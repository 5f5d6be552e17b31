"""Measurements that anyone can run: ``python -m benchmarks``, or one of them: ``python -m benchmarks.NAME``."""
