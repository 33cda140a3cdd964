"""Translations of recurrent layers: RNN, GRU and LSTM.

torch's fused functions compute them, with the weights' gates put into torch's order. A GRU with
linear_before_reset=0 has no counterpart in torch: it is computed step by step.
"""

from __future__ import annotations

import torch
from torch.nn import functional as F

from graphscale.convert.operators.registry import translates

# For each gate in torch's order, its index in ONNX's weights. LSTM: ONNX i, o, f, c; torch i, f, c,
# o. GRU: ONNX z, r, h; torch r, z, h.
_GATES = {"RNN": [0], "LSTM": [0, 2, 3, 1], "GRU": [1, 0, 2]}
_DEFAULT_ACTIVATIONS = {
    "RNN": ["Tanh"],
    "LSTM": ["Sigmoid", "Tanh", "Tanh"],
    "GRU": ["Sigmoid", "Tanh"],
}


@translates("RNN", "GRU", weights=(1, 2, 3))
def _rnn(node, x, w, r, b=None, lengths=None, initial=None):
    return _recurrent(node, x, w, r, b, lengths, [initial])


@translates("LSTM", weights=(1, 2, 3))
def _lstm(node, x, w, r, b=None, lengths=None, initial=None, cell=None, peepholes=None):
    if peepholes is not None:
        node.fail("peephole weights are not supported; export an LSTM without them")
    return _recurrent(node, x, w, r, b, lengths, [initial, cell])


def _recurrent(node, x, w, r, b, lengths, states):
    """The outputs of a recurrent node: Y (T, D, N, H) and the last states (D, N, H).

    x (T, N, I), w (D, G·H, I), r (D, G·H, H), b (D, 2·G·H): T steps, N sequences, I inputs, H
    hidden units, D directions, G gates.
    """
    batch_first = bool(node.attribute("layout", 0))
    if batch_first:  # x (N, T, I) and states (N, D, H)
        x = x.transpose(0, 1)
        states = [None if state is None else state.transpose(0, 1) for state in states]
    _check(node, x, lengths)
    kind, hidden = node.op_type, r.shape[2]
    count = w.shape[0]
    directions = []
    for index in range(count):
        backwards = count == 1 and node.attribute("direction", "forward") == "reverse"
        own = [
            x.new_zeros((x.shape[1], hidden)) if state is None else state[index] for state in states
        ]
        weights = _torch_weights(kind, w[index], r[index], None if b is None else b[index])
        directions.append(_direction(node, x, weights, own, backwards or index == 1))
    outputs = [torch.stack([each[0] for each in directions], 1)]
    outputs += [torch.stack(finals) for finals in zip(*(each[1] for each in directions))]
    if batch_first:
        outputs = [outputs[0].movedim(2, 0), *(each.transpose(0, 1) for each in outputs[1:])]
    return tuple(outputs[: node.output_count])


def _check(node, x, lengths):
    """Refuse sequence lengths, options and activations that are not supported."""
    if lengths is not None and not (
        isinstance(lengths, torch.Tensor)
        and isinstance(x.shape[0], int)
        and bool((lengths == x.shape[0]).all())
    ):
        node.fail("sequences of different lengths are not supported; leave sequence_lens out")
    if node.attribute("clip") or node.attribute("input_forget", 0):
        node.fail("clip and input_forget are not supported; export without them")
    names = node.attribute("activations")
    default = _DEFAULT_ACTIVATIONS[node.op_type]
    relu = node.op_type == "RNN" and names is not None and set(names) == {"Relu"}
    if names is not None and not relu and names != default * (len(names) // len(default)):
        node.fail(f"activations {names} are not supported; use {default}")


def _torch_weights(kind, w, r, b):
    """[W, R, and the biases if there are any] with the gates in torch's order."""
    order = _GATES[kind]

    def ordered(tensor):
        parts = torch.chunk(tensor, len(order), 0)
        return torch.cat([parts[gate] for gate in order], 0) if len(order) > 1 else tensor

    if b is None:
        return [ordered(w), ordered(r)]
    half = b.shape[0] // 2
    return [ordered(w), ordered(r), ordered(b[:half]), ordered(b[half:])]


def _direction(node, x, weights, states, backwards):
    """One direction: its outputs (T, N, H) and its last states (N, H)."""
    x = torch.flip(x, (0,)) if backwards else x
    if node.op_type == "GRU" and not node.attribute("linear_before_reset", 0):
        y, finals = _gru(x, weights, states[0])
    else:
        states = [state.unsqueeze(0) for state in states]
        relu = (node.attribute("activations") or [""])[0] == "Relu"
        function = {"LSTM": torch.lstm, "GRU": torch.gru}.get(
            node.op_type, torch.rnn_relu if relu else torch.rnn_tanh
        )
        hidden = tuple(states) if node.op_type == "LSTM" else states[0]
        # The last arguments: biases, one layer, no dropout, training, one direction, time first.
        results = function(x, hidden, weights, len(weights) == 4, 1, 0.0, True, False, False)
        y, finals = results[0], [results[1 + i].squeeze(0) for i in range(len(states))]
    return torch.flip(y, (0,)) if backwards else y, finals


def _gru(x, weights, state):
    """A GRU whose reset gate acts before the matrix product (linear_before_reset=0)."""
    hidden = weights[1].shape[1]
    w, r = weights[:2]
    inputs = F.linear(x, w, weights[2] if len(weights) == 4 else None)
    bias = weights[3] if len(weights) == 4 else None
    outputs = []
    for step in range(x.shape[0]):
        now = inputs[step]
        gates = F.linear(state, r[: 2 * hidden], None if bias is None else bias[: 2 * hidden])
        gates = torch.sigmoid(now[:, : 2 * hidden] + gates)
        reset, update = gates[:, :hidden], gates[:, hidden:]
        new = F.linear(reset * state, r[2 * hidden :], None if bias is None else bias[2 * hidden :])
        new = torch.tanh(now[:, 2 * hidden :] + new)
        state = (1.0 - update) * new + update * state
        outputs.append(state)
    return torch.stack(outputs), [state]
