"""The commands of `journal-inspect`, a module for each."""
