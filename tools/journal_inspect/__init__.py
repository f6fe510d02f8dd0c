"""journal-inspect: looks into a journal, alive or dead, and never makes things worse.

It works through the public names of `journal` and `manager` alone. Of its verbs only `repair`
takes the lock, and only with `--apply` does it change anything; all others open nothing for
writing but the new file that they were told to make.

A module a verb. The command line itself is in `cli`, with the arguments of the verbs in `verbs`,
`verbs_fleet` and `verbs_other`, and what they share in `options`. How things are shown is in
`look`, `entries`, `objects` and `text`, what exit codes say in `exits`; the JSON Schema of each
verb's output lies in `schemas`.
"""
