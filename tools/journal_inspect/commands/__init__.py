"""What each command of `journal-inspect` does."""
