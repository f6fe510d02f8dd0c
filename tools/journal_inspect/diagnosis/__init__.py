"""Facts about a directory: damage, ends, kept files, times."""
