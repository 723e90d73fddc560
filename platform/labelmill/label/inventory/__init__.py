"""What there is to label: a listing of pictures, wherever it comes from, with the version of each.

`inventory` opens what the `images` of a spec describe, each kind of listing has a module, and an `item` is what they
all list. It knows no table and no model; what is left to do, the workers, the job and `check` import it.
"""
