"""What sentence-transformers has moved. Imports it only when asked."""

from typing import Any


def encoder_modules() -> Any:
    """
    `Transformer` and `Pooling`, which make an encoder of a plain model: in `sentence_transformers.sentence_transformer
    .modules` (seen on 6.2.0), and in `sentence_transformers.models` before.
    """
    try:
        from sentence_transformers.sentence_transformer import modules
    except ImportError:
        from sentence_transformers import models as modules
    return modules
