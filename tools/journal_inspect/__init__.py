"""journal-inspect: a command that looks into a journal, whether its writer is running or not.

It uses only the public names of `journal` and `manager`. Only `repair`, `follow` and
`mirror reappend` take the lock, and only `repair --apply` and `mirror reappend --apply` change a
journal. The other verbs write nothing but the file or directory that the user names.

Each verb has a module in `commands`. The command line is in `commands.cli`, the verbs' arguments in
`commands.verbs`, `verbs_tables`, `verbs_fleet`, `verbs_mirror` and `verbs_other`, and the options
that they share in `commands.options`. `diagnosis` finds out what is wrong with a journal,
`rendering` prints text and JSON, `report` makes the HTML page, `exits` defines the exit codes, and
`schemas` contains the JSON Schema of each verb's output.
"""
