"""SAEs on the Hugging Face hub: ``hf:owner/repo[/folder][@revision]``, downloaded file by file, pinned to a commit."""

import errno
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from app.errors import BadRequest, DiskFull, HubUnavailable


class HubSpec(NamedTuple):
    """repo is ``owner/name``; folder is '' for the top; revision a branch, tag or commit, None for the default."""

    repo: str
    folder: str
    revision: str | None


class Fetched(NamedTuple):
    """Where the files lie, and the commit they are of."""

    folder: Path
    commit: str


def parse(text: str) -> HubSpec:
    """``hf:owner/repo/folder@revision``.

    Raises:
        BadRequest: it is not of that form.
    """
    name = r"[\w.-]+"
    found = re.fullmatch(rf"hf:({name}/{name})((?:/{name})*)/?(?:@([\w./-]+))?", text)
    if not found or ".." in text:
        raise BadRequest(f"{text!r} is not of the form hf:owner/repo[/folder][@revision].", source=text)
    return HubSpec(found[1], found[2].strip("/"), found[3])


def fetch(spec: HubSpec, store: Path, *, on_file: Callable[[str, int], None] = lambda name, size: None) -> Fetched:
    """Download the files of ``spec``'s folder (and its checkpoints/) below ``store``; a cut download is resumed.

    Raises:
        HubUnavailable: the hub, the repository, the revision or the folder cannot be had; says what to do.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

    by_hand = (
        f"download {spec.folder or 'the files'} of {spec.repo} where there is a network and give the folder's path"
    )
    try:
        info = HfApi().model_info(spec.repo, revision=spec.revision, files_metadata=True)
        commit, names = str(info.sha), [s.rfilename for s in info.siblings or []]
        sizes = {s.rfilename: s.size or 0 for s in info.siblings or []}
        wanted = [n for n in names if str(Path(n).parent) in _folders(spec.folder)]
        if not wanted:
            raise HubUnavailable(_no_folder(spec, names), repo=spec.repo, folder=spec.folder)
        target = store / spec.repo.replace("/", "--") / commit
        for name in wanted:
            on_file(name, sizes[name])
            hf_hub_download(spec.repo, name, revision=commit, local_dir=target)
    except RepositoryNotFoundError:
        raise HubUnavailable(
            f"There is no repository {spec.repo} on the hub that can be read from here; a private or gated one needs "
            "HF_TOKEN.",
            repo=spec.repo,
        ) from None
    except RevisionNotFoundError:
        raise HubUnavailable(
            f"{spec.repo} has no revision {spec.revision!r}.", repo=spec.repo, revision=spec.revision
        ) from None
    except HfHubHTTPError as error:
        status = getattr(error.response, "status_code", "no")
        raise HubUnavailable(f"The hub answered {status} for {spec.repo}; try again, or {by_hand}.") from None
    except HubUnavailable:
        raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
            raise DiskFull(f"The download could not be written below {store}: {error.strerror}.") from None
        raise HubUnavailable(f"The hub cannot be reached ({error}); {by_hand}.", repo=spec.repo) from None
    except Exception as error:  # its client's transport errors have no base of their own
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise HubUnavailable(f"The hub cannot be reached ({reason}); {by_hand}.", repo=spec.repo) from None
    return Fetched(target / spec.folder, commit)


def _folders(folder: str) -> set[str]:
    return {folder or ".", f"{folder}/checkpoints".lstrip("/")}


def _no_folder(spec: HubSpec, names: list[str]) -> str:
    import difflib

    folders = sorted({str(Path(n).parent) for n in names if "/" in n})
    near = difflib.get_close_matches(spec.folder, folders, n=6, cutoff=0.3) or folders[:6]
    return f"{spec.repo} has no files in {spec.folder or 'its top folder'}; it has folders such as: {', '.join(near)}."
