"""What is left to do: the pictures that an inventory lists, less those of which the table has a final row.

`plan` makes the list, which is a `todo`; `difference` is how it subtracts, over an `index`. `settings` say which rows
are final, `vanished` whether too many pictures are gone, and `unread` gives rows to pictures that nobody reads. It
reads inventories and tables; the job, its preview and the workers import it.
"""
