"""How a candidate becomes a published version: measured, calibrated, reported, and perhaps promoted.

The training run imports it, and nothing else: whatever an approach made ends here in the same way.
"""
