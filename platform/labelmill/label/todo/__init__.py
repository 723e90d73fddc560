"""What is left to do: the pictures that an inventory lists, less those of which the table has a final row.

`plan` makes the list, which is a `todo`, and `difference` is how it subtracts; `settings` say which rows are final, and
`deletion` gives rows to pictures that are gone. It reads inventories and tables; the job, its preview and the workers
import it.
"""
