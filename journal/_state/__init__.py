"""State machines kept in a journal."""
