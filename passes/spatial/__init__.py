"""Follow heights and widths through a graph: one rule per operator family."""
