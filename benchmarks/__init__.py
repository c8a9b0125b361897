"""How fast lumix is beside the best peers and beside the floor of the machine: `python -m benchmarks` (`make bench`).

One module per row. Each checks first that everybody computes the same; only then rivals run, interleaved.
"""
