"""An open journal, and the compaction of its log."""
