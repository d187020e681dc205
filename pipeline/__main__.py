"""``python -m pipeline`` is ``soundstorm``."""

from pipeline.cli import main

if __name__ == "__main__":
    main()
