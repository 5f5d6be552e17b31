"""The same work done by several clients.

- `clients`: One module per client
- `comparison`: Runs clients side by side, each against its own server, and tabulates their figures
- `peers`: Compares this package with other clients
- `revisions`: Compares two checkouts of this package (worker: `revision_worker`)
"""
