"""`python -m hf_dataselect` is `hf-dataselect`, so that `accelerate launch -m hf_dataselect train ...` works."""

from .cli.main import main


if __name__ == "__main__":
    main()
