"""Long runs that check the account: every request has one outcome, and nothing is lost or billed twice.

- `endurance`: Ten thousand generations while the gateway misbehaves
- `bulk_kill`: A durable run that is killed again and again
- `bulk_outage`: A durable run through outages: refused connections, and 502 to everything
- `bulk_disk`: A durable run on a full disk, and on a read-only one
- `bulk_memory`: Memory of a durable run of 100,000 prompts, and the journal's share of its CPU
- `shared_run`: Four processes over one run, one of them killed every two seconds (command: `bulk_worker`)
- `database_restart`: A durable run whose database crashes and loses all connections
- `job_queue`: A job queue whose workers are terminated and killed (worker: `job_queue_worker`)
- `web_server`: A web server that is killed while its images are made (server: `web_server_app`)
- `zombie`: A process that is stopped at every step, and continues after its lease (process: `zombie_worker`)
- `fuzz`: Every reader of foreign bytes under a fuzzer, for a bounded time; `fuzz_targets` has the readers
- `junk`: Ten thousand random requests to the emulator
"""
