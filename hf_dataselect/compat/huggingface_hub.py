"""
huggingface_hub (seen on 2.4): where no answer comes, it raises the errors of its HTTP client as they are. The client
changes with its versions (requests, httpx, httpx2); the error that it derives its own from is the one to catch.
"""

from huggingface_hub.errors import HfHubHTTPError, HFValidationError


HUB_ERRORS = (*HfHubHTTPError.__bases__, HFValidationError, OSError)
