"""`python -m labelmill`: the command line of this very interpreter."""

from labelmill.cli import main

if __name__ == "__main__":
    main()
