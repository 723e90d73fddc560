"""The approaches to a model, a module each: `make(job, training_set, draft)` gives a candidate.

`fit` trains a network on Ray Train; the others make one of published models, or of few pictures. They are imported by
name, when a spec asks for them (`train/candidate.py`).
"""
