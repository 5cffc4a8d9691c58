"""Imported once by the server that forks ranks: what a command or a test's module would import."""

import gc
from importlib import import_module
from pathlib import Path

from transformers.conversion_mapping import get_checkpoint_conversion_mapping

import hf_dataselect


PACKAGE = Path(hf_dataselect.__file__).parent
NAMES = (
    "scipy.io",
    "sklearn.cluster",
    "tensorboard",
    "torch.distributed.algorithms.ddp_comm_hooks.default_hooks",
    "transformers.models.llama.modeling_llama",
    *(f"hf_dataselect.cli.{path.stem}" for path in PACKAGE.glob("cli/[a-z]*.py")),
    *(f"hf_dataselect.selectors.{path.stem}" for path in PACKAGE.glob("selectors/[a-z]*.py")),
    "tests.cli.test_compare",
    "tests.engines.forward.test_generation",
    "tests.engines.gradients.test_collect",
    "tests.engines.llm.test_judge",
    "tests.parity",
    "tests.selectors.test_instructiongpt4",
    "tests.selectors.test_nuggets",
    "tests.test_contract",
)
for name in NAMES:
    import_module(name)
get_checkpoint_conversion_mapping("llama")  # compiles a thousand patterns
# Trainers collect garbage several times; this spares them looking through all modules each time.
gc.collect()
gc.freeze()
