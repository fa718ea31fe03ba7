"""`python -m wirework`: the same as `wirework`."""

from wirework.cli import main

if __name__ == "__main__":
    main()
