"""Keys and tokens, as the environment holds them, are kept out of what models and servers say."""

import os
import re


#: Names of environment variables that hold a secret.
_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)S?$", re.IGNORECASE)
#: Values that are shorter are placeholders (`none`, `EMPTY`), or words that any text may hold.
_SHORTEST = 8


def redacted(text: str) -> str:
    """The text with `***` in place of each key and token of the environment."""
    secrets = {value for name, value in os.environ.items() if len(value) >= _SHORTEST and _NAMES.search(name)}
    for secret in sorted(secrets, key=len, reverse=True):  # one may hold another
        if secret in text:
            text = text.replace(secret, "***")
    return text
