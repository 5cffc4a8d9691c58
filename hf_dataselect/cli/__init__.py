"""`hf-dataselect`: one file a command, each with a `run(argv)`. Imported by nothing."""
