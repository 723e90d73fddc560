"""What a run took: the account that is kept beside the table, and what is said of it while it goes on.

`clock` divides the wall-clock among the stages, `usage` counts CPU-seconds and memory, `money` what they cost; the
`receipt` joins them, and `page` shows it with a `sheet` of pictures. Only the job and its preview import it.
"""
