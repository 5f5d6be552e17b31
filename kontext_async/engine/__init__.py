"""What moves: connections, the scheduler, the poll loop, downloads, and the task that owns them."""
