"""The contenders of the bulk benchmark: labelmill, its peers and the limit, each a program of its own process tree."""
