"""The trainer, its config and callbacks, recipes, resumed runs, comparisons of runs. Imports all but `cli`."""
