"""What a trained model is worth: protocols in rooms, each a pure metric and a thin driver.

`evaluation` is the registry and the cache; `images` and `models` serve the rooms: `attention`, `robustness`, which
reads attention, `natural`, `segmentation`, whose decoders are all that trains here, and `throughput`.
"""
