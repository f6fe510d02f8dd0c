"""Adapters: stores of other libraries, kept in a journal. Each needs the extra of its name."""
