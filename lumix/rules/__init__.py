"""Label space: rules that turn a prediction and a mixed batch into the weight of the own label, one a file."""
