"""The verbs of `journal-inspect`, one module for each."""
