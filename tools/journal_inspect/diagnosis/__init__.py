"""The diagnosis of a journal: its damage, its end, what is kept, and what to do next."""
