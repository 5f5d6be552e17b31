"""Helpers of all benchmarks.

- `server_process`: Starts a server in its own process and reads its counts
- `measure`: Measures CPU time, wall time, blocked turns of the event loop, and medians of runs
- `peak_memory`: Measures the peak memory of a block, as the kernel counts it
- `sampling`: Samples where CPU time is spent
- `thresholds`: Compares a figure with its limit
- `plots`: Draws figures with matplotlib
"""
