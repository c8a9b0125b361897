"""How fast lumix is beside the best peers and beside the floor of the machine: `python -m benchmarks` (`make bench`).

A row is a function of a `Setting` that yields the lines of one table. It checks first that everybody computes the same;
only then rivals run, interleaved.
"""
