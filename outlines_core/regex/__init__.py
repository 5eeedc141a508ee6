"""Pattern text -> AST -> byte NFA -> lazy DFA; set algebra on the way."""
