"""Text and JSON objects for people and programs."""
