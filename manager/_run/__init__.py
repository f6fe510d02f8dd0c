"""The runner of commands as sub-agents."""
