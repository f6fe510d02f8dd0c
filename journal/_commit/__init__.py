"""Commits: the way of a record from its append to the disk, and its waiters."""
