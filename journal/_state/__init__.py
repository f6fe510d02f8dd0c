"""State machines whose changes are journaled."""
