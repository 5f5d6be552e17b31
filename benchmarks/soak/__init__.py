"""Long runs that check the account: every request has one outcome, and nothing is lost or billed twice.

- `endurance`: Ten thousand generations while the gateway misbehaves
- `bulk_kill`: A durable run that is killed again and again
- `bulk_disk`: A durable run on a full disk, and on a read-only one
- `bulk_memory`: Memory of a durable run of 100,000 prompts, and the journal's share of its CPU
"""
