"""Reading, checking, copying and repairing a journal from outside, without its writer."""
