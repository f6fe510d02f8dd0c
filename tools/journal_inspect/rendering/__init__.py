"""The rendering of data: text for people, and JSON objects for programs."""
