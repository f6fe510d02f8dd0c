"""Tables: named, ordered maps from keys to values, with transactions, in one journal."""
