"""The bytes of records, frames, segments and checkpoints."""
