"""Translation of ONNX's Attention (opset 23) to torch's scaled dot-product attention."""

from __future__ import annotations

from torch.nn import functional as F

from graphscale.convert.operators.registry import translates


@translates("Attention")
def _attention(node, query, key, value, mask=None, *past):
    windowed = max(node.attribute("left_window_size", -1), node.attribute("right_window_size", -1))
    if past or node.output_count > 1 or node.attribute("softcap", 0.0) or windowed >= 0:
        node.fail("only plain attention is supported: no cache, window, softcap or score output")
    packed = query.ndim == 3
    if packed:
        query = _heads(query, node.attribute("q_num_heads"))
        key = _heads(key, node.attribute("kv_num_heads"))
        value = _heads(value, node.attribute("kv_num_heads"))
    y = F.scaled_dot_product_attention(
        query,
        key,
        value,
        mask,
        is_causal=bool(node.attribute("is_causal", 0)),
        scale=node.attribute("scale"),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return y.transpose(1, 2).flatten(2) if packed else y


def _heads(x, count):
    """(N, L, heads * E) to (N, heads, L, E)."""
    return x.unflatten(2, (count, -1)).transpose(1, 2)
