"""Reading, checking, copying and repairing a directory from outside."""
