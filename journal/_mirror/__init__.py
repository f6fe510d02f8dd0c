"""The mirror: a copy of a journal's directory on another machine's store, byte for byte."""
