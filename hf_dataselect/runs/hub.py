"""Repositories on the Hub: what goes wrong with them is one line, with the option and what to do."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi

from ..compat.huggingface_hub import HUB_ERRORS
from ..errors import HubError, explained, without_credentials


@contextmanager
def pushing(option: str, repo: str, kept: Path | str | None = None) -> Iterator[None]:
    """
    What is done with a repository.

    Args:
        option, repo (`str`):
            The option that names it, and its value.
        kept (`Path`, *optional*):
            Where on this machine is what was to be pushed.

    Raises:
        [`HubError`]: The Hub is not reached, or refuses.
    """
    try:
        yield
    except HubError:
        raise
    except HUB_ERRORS as error:
        why = without_credentials(explained(error)).splitlines()[0].rstrip(".")
        advice = f"It is kept in {kept}." if kept else "Check the network and `hf auth login`, or leave it out."
        raise HubError(f"`{option}={repo!r}` can't be pushed to: {why}. {advice}") from error


def make_repo(option: str, repo: str, kind: str, private: bool = True, token: str | None = None) -> str:
    """
    Make a repository, if it does not exist, so that what can't be pushed is refused before it is computed.

    Args:
        option, repo (`str`):
            The option that names it, and its value: `user/name`, or a name for the user's own.
        kind (`str`):
            `model`, `dataset` or `space` (a static one).
        private (`bool`, *optional*, defaults to `True`):
            Of a new one. Rows may not be yours to publish.
        token (`str`, *optional*):
            That of the user; by default the one that is logged in.

    Returns:
        `str`: `user/name`.

    Raises:
        [`HubError`]: The Hub is not reached, or refuses.
    """
    sdk = "static" if kind == "space" else None
    with pushing(option, repo):
        made = HfApi(token=token).create_repo(repo, repo_type=kind, private=private, exist_ok=True, space_sdk=sdk)
    return made.repo_id


def push_folder(option: str, repo: str, kind: str, folder: Path, token: str | None = None) -> str:
    """Push the files of a folder, in one commit; gives the address."""
    with pushing(option, repo, folder):
        api = HfApi(token=token)
        api.upload_folder(repo_id=repo, repo_type=kind, folder_path=folder, commit_message="Pushed by hf_dataselect")
        return f"{api.endpoint}/{kind}s/{repo}"
