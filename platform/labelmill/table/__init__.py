"""The label table: one row a picture and model, kept as a Delta Lake table of plain Parquet files.

Its row, how it is written and read, who may write it, its current view and its upkeep; nothing of a run. A label job
writes it, and whoever wants to know what the labels are reads it: `label`, the command line, and what watches and
corrects labels. Importing it brings in neither Ray nor torch.
"""
