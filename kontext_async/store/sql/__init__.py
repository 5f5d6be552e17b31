"""The store in a database: SQLite for the workers of one machine, PostgreSQL for those of several.

Transactions are plain functions that get a `transaction.Transaction`. SQLite runs each in one thread call, PostgreSQL
on a pooled connection, both through SQLAlchemy: nothing of ours is awaited between BEGIN and COMMIT.

===============  ======================================================================================
`urls`           the URL of a database, read and checked; names without passwords
`schema`         the tables, version 2
`version_1`      the tables of version 1, as they were
`records`        rows of the store as records of the table, and back
`transaction`    `Transaction`, in which SQL is executed; what differs between the databases in SQL
`database`       `Database`: the connections, deadlines and cancellation
`failures`       the errors of databases and drivers as errors of this package
`sqlite`         SQLite: files, clock, connections
`examination`    an SQLite file is examined before anything is written to it
`mounts`         whether a file lies on a network file system
`postgresql`     PostgreSQL: connections, checks at the start
`migrations`     creates the tables, or migrates those of an older version
`changes`        the statements that write groups of steps
`applying`       applies a group of steps
`planning`       plans rows
`reading`        reads rows, second tasks and summaries
`registers`      workers, accounts, runs and folders
`store`          `SqlStore`
`opening`        makes the store of an address
===============  ======================================================================================
"""
