"""The search for better settings: trials of one spec on Ray Tune, the weak ones stopped early.

Its best trial is the candidate, so it is imported as an approach is: by name (`train/candidate.py`).
"""
