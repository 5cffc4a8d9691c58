"""Keys and tokens, as the environment holds them, are kept out of what models and servers say."""

import os
import re


#: The key that servers are sent; shorter ones are placeholders (`none`, `EMPTY`).
_SENT, _SHORTEST = "OPENAI_API_KEY", 8
#: Names of other variables that hold a secret, and what it looks like: `SORT_KEY=response` is a word of any reply.
_NAMES = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD)S?$", re.IGNORECASE)
_LOOKS = re.compile(r"(?=.*[A-Za-z])(?=.*\d)\S{16,}", re.DOTALL)


def redacted(text: str) -> str:
    """The text with `***` in place of each key and token of the environment."""
    secrets = {value for name, value in os.environ.items() if _NAMES.search(name) and _LOOKS.fullmatch(value)}
    if len(key := os.environ.get(_SENT, "")) >= _SHORTEST:
        secrets.add(key)
    for secret in sorted(secrets, key=len, reverse=True):  # one may hold another
        text = text.replace(secret, "***")
    return text
