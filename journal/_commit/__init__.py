"""From an append to a durable record: the log buffer, commits, waiters."""
