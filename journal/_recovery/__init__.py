"""The recovery rule: which checkpoint to load, which records to replay, what is damage."""
