"""The work spread over a cluster by Ray Data, and all that a label job knows of Ray.

`pipeline` hands out chunks of the to-do list to what lives in `work`, `execution` runs it and can end it, `workers`
says how many begin. The job imports it, and nothing else does.
"""
