"""How a file becomes a checked spec, and what is said of one that does not: with file, line and field.

It knows every kind of spec, and no kind knows it.
"""
