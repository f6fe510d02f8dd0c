"""The bytes: records, frames, segments, checkpoints. Nothing here does I/O by itself."""
