"""JSON Schema: documents -> normalised nodes -> boolean formulas -> a pushdown of interned frames."""
