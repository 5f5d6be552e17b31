"""Helpers of all benchmarks.

- `server_process`: Starts a server in its own process and reads its counts
- `measure`: Measures CPU time, wall time, blocked turns of the event loop, and medians of runs
- `peak_memory`: Measures the peak memory of a block, as the kernel counts it
- `heap`: Reads how much memory this process uses
- `sampling`: Samples where CPU time is spent
- `thresholds`: Compares a figure with its limit
- `plots`: Draws figures with matplotlib
- `checks`: Prints the checks of a soak
- `stores`: Runs the database of a store, and compares the store with the gateway's ledger
- `filled_store`: Fills a store with finished rows
- `bulk_processes`: Runs ``kontext-async bulk`` on a store in processes
"""
