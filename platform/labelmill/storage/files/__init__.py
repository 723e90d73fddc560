"""A folder as an object store: what lies below it, which version of a file is there, and what a refusal means.

`storage` opens one; nobody else imports what lies here.
"""
