"""The grids of Table 7 and the losses of Table 9. Imports no torch, so that tables can name them."""

# Number of patches -> rows and columns: the paper's six, then the finer ones that its text speaks of (I-29).
GRIDS = {1: (1, 1), 4: (2, 2), 8: (2, 4), 16: (4, 4), 32: (4, 8), 64: (8, 8), 196: (14, 14)}
AVERAGED = (1, 4, 8, 16, 32, 64)
LOSSES = tuple(range(0, 100, 10))  # per cent; the columns of Table 9
ATTENDED = ("non_salient", "salient", "non_salient_by_count", "salient_by_count")
VARIANTS = ("random", *ATTENDED)


def fitting_grids(image_size: int, token: int) -> list[int]:
    """The grids that divide a square image of that side into patches no smaller than one token of that side."""
    return [
        grid
        for grid, sides in GRIDS.items()
        if all(image_size % side == 0 and image_size // side >= token for side in sides)
    ]
