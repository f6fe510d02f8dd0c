"""Agents that run on workers in other processes, on this and other machines."""
