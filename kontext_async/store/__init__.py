"""Paid work, known outside the process that paid: rows by key, shared by workers and machines.

===============  ======================================================================================
`worker`         `Worker`, one incarnation of a session at a store; its parts follow
`group_commit`   steps that come together are written in one transaction
`step_queue`     the order in which steps are written; pure
`planner`        plans the rows of concurrent calls together
`row_watcher`    waits for rows that other workers change
`heartbeat`      extends the lease of a worker
`boot_clock`     the time since the machine was started
`unwritten_ids`  keeps the IDs of paid tasks until the store has them
`spool`          the local file for the IDs that the store could not take
`disk_reserve`   disk space that is reserved for what must be written
`availability`   the failures of the store, and its recoveries
`calls`          calls of a store with a time limit
`steps`          the steps of a row, as frozen values
`rows`           the values that a store keeps and returns
`states`         the legal steps of each state, and what becomes of a step: a table, and pure
`outcomes`       what a step does to a row and to its second paid tasks; pure
`limits`         whether the cost limit of a run admits one more create request; pure
`access`         what a caller with a key gets, by the row of the key: a table, and pure
`records`        generations and errors as JSON, and back
`digest`         the digest of a request, without the signatures of image URLs
`base`           `Store`, the interface
`memory`         the store in memory
`sql`            the store in SQLite or PostgreSQL
`urls`           opens a store by its URL
`version_1`      the names and tokens of directories that version 1 of the store has left
===============  ======================================================================================
"""
