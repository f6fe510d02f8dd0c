"""Users' programs, which are only type-checked, by mypy in strict mode and by pyright.

Each line with `type: ignore` is a mistake that both checkers have to report: mypy for
`warn_unused_ignores`, and pyright for `reportUnnecessaryTypeIgnoreComment`. Each `assert_type` is a
type that both have to infer.
"""
