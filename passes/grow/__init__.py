"""Fill the target network with the weights of a trained pre-train network.

`grow_graph` does it; `follow_untied_weights` first gives the target the weights that training has
untied, `match_weights` finds each weight in the checkpoint.
"""
