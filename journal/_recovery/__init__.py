"""The recovery rule: the checkpoint to load, the records to replay, and what counts as damage."""
