"""Requests from other processes to the manager of a state."""
