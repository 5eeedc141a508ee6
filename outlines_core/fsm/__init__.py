"""The import paths of `outlines_core` 0.1, as outlines 0.1 to 1.1 use them: `guide`, `regex`, `json_schema`.

The automata, masks and vocabularies behind them are those of the rest of the package. New code is better off with
`outlines_core.compile_regex` and `processors.guide`.
"""
