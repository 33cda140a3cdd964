"""What several passes need in order to read or change one graph.

Reading: `graph_inputs`, `weight_source`, `infer_shapes`, `evaluate_node`. Changing:
`add_initializer`, `replace_node`, `free_names`. `rewrite_result` is what a rewriting pass returns.
"""
