"""Commits: the path of a record from its append to the disk, and its waiters."""
