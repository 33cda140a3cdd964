"""Bring every model into one form before anything else looks at it.

`normalize` is what shrink, grow, load and accelerate call first: functions inlined
(`inline_functions`), open sizes symbolic (`open_dimensions`), nodes named. Shrinking goes on with
`resolve_static_ifs`, `fold_constants` and `split_constants`, loading with `untie_weights`.
"""
