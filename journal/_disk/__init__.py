"""The disk: its interface, the real one, and the directory's lock."""
