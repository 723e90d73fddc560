"""What is left to do: the pictures that an inventory lists, less those of which the table has a final row.

`plan` makes the list, which is a `todo`, and `difference` is how it subtracts; `deletion` gives rows to pictures that
are gone, and `precision` says what a run computes in, which is part of what makes a row final. It reads inventories and
tables; the job, its preview and the workers import it.
"""
