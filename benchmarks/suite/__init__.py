"""The measurements that ``python -m benchmarks`` runs, in their order; the last two only where they are named.

- `imports`: CPU of ``import kontext_async``
- `create_cpu`: CPU of one create request
- `status_cpu`: CPU of one status request
- `log_cpu`: CPU of one status request with and without a logger
- `connections`: Connections that are opened in the steady state
- `memory`: Memory per pending task (worker: `pending_worker`)
- `makespan`: Duration of a run of many tasks, against the best possible one
- `at_once`: The last outcome of 1000 requests at once, and their requests, in paired runs
- `poll_curve`: Makespan and CPU at two prices of a poll, and the bound at each
- `simulation`: Status requests that the adaptive timing needs (model: `simulation_service`)
- `batch_end`: The end of a batch, by several rules (model: `batch_simulation`)
- `watched`: Polls of tasks that somebody watches, and of those beside them
- `pacing`: Sessions that share an account (model: `pacing_simulation`, `pacing_reference`; worker: `pacing_worker`)
- `uploads`: CPU, memory and stalls of large create requests (worker: `upload_worker`)
- `downloads`: Memory and stalls of many downloads
- `idle_close`: Create requests through a proxy that closes idle connections
- `validation`: Time and memory of the validation of a prompt file
- `store_cpu`: The store's share of the CPU of a task, its throughput, and memory (worker: `store_worker`)
- `store_size`: Runs beside a million rows, dry runs and resumes
"""
