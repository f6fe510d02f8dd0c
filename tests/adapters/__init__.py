"""Tests of the adapters. Those of a client that is not installed are skipped."""
