"""journal-inspect: a command that looks into a journal, whether its writer is running or not.

It uses only the public names of `journal` and `manager`. Only `repair` takes the lock, and only
`repair --apply` changes a journal. The other verbs write nothing but the new file or directory that
the user names.

Each verb has a module in `commands`. The command line is in `commands.cli`, the verbs' arguments in
`commands.verbs`, `verbs_fleet` and `verbs_other`, and the options that they share in
`commands.options`. `diagnosis` finds out what is wrong with a journal, `rendering` prints text and
JSON, `report` makes the HTML page, `exits` defines the exit codes, and `schemas` contains the JSON
Schema of each verb's output.
"""
