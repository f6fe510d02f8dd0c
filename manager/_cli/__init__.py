"""The `subagents` command."""
