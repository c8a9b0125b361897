"""Controls of ours: what the paper's explanation predicts and its tables do not test."""
