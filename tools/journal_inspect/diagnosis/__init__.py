"""What is known about a directory: damage, ends, kept files, times."""
