"""What all passes need to know and do in one graph.

Looking: `graph_inputs`, `weight_source`, `infer_shapes`, `evaluate_node`. Changing:
`add_initializer`, `replace_node`, `free_names`; `rewrite_result` is what a pass returns.
"""
