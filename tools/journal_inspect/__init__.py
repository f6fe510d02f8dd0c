"""journal-inspect: looks into a journal, alive or dead, and never makes things worse.

It reads through the public names of `journal` and `manager` alone: no lock is taken, nothing
is written. A module a verb; what they print with is in `output`, what exit codes say in `exits`.
"""
