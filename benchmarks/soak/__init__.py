"""Long runs that check the account: every request has one outcome, and nothing is lost or billed twice.

- `endurance`: Ten thousand generations while the gateway misbehaves
- `bulk_kill`: A durable run that is killed again and again
- `bulk_outage`: A durable run through outages: refused connections, and 502 to everything
- `bulk_disk`: A durable run on a full disk, and on a read-only one
- `bulk_memory`: Memory of a durable run of 100,000 prompts, and the journal's share of its CPU
- `fuzz`: Every reader of foreign bytes under a fuzzer, for a bounded time; `fuzz_targets` has the readers
- `junk`: Ten thousand random requests to the emulator
"""
