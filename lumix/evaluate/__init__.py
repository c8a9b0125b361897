"""What a trained model is worth: one protocol per file, each a pure metric and a thin driver.

Nothing trains here but the decoders of Table 4.
"""
