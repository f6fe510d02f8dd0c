"""Running commands as sub-agents."""
