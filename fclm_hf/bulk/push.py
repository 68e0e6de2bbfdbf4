"""Upload of mattes to the Hub as a data set with a card."""

import re
from pathlib import Path

from huggingface_hub import CommitInfo, CommitOperationAdd, CommitOperationDelete, DatasetCardData, HfApi
from huggingface_hub.constants import REPOCARD_NAME

from ..hub.checkpoints import check_repo_id
from .options import BulkOptions
from .run import BulkSummary


OUTDATED = re.compile(r"data/mattes-\d+-\d+\.parquet$")
MARK = "<!-- Written by fclm_hf, which replaces this card. Delete this line to keep your changes. -->"
TEXT = """
{mark}
# Mattes of {source}

{kind} of the photos of `{source}` (split `{split}`{revision}), made by
[fclm_hf](https://github.com/fclm-hf/fclm_hf) with the checkpoint `{model}` ({dtype}). Prompts: {prompts}.
{matted} of {rows} photos have been matted, {errors} could not be.

| column | |
|---|---|
| `id` | id or path of the photo in its data set |
| `mattes` | one PNG file for each object, {mode}, of the size of the photo |
| `seconds` | time that the photo took |
| `error` | why there are no mattes, or null |

```python
from datasets import Image, List, load_dataset

mattes = load_dataset("{repo}", split="train").cast_column("mattes", List(Image()))
mattes[0]["mattes"]
```

The license of the photos applies to their mattes; the mattes have not been checked by hand.
"""


def check_repository(repo_id: str) -> str:
    """Return the full id of a data set on the Hub, before work for hours.

    Args:
        repo_id: Name, or namespace/name.

    Raises:
        ValueError: If the id is invalid.
        OSError: If there is no token, or the Hub denies the request.
    """
    check_repo_id(repo_id)
    user = HfApi(library_name="fclm_hf").whoami()["name"]
    return repo_id if "/" in repo_id else f"{user}/{repo_id}"


def push_mattes(
    options: BulkOptions, summary: BulkSummary, repo_id: str, *, private: bool | None = None, token: str | None = None
) -> CommitInfo:
    """Upload the mattes of a finished run, in one commit, in place of those of an earlier run.

    Args:
        options: Options of the run.
        summary: Its result.
        repo_id: Id of the data set on the Hub, namespace/name. It is created if it does not exist.
        private: Whether a new data set is private; by default the setting of the account.
        token: Access token with write permission; by default that of `hf auth login` or `HF_TOKEN`.

    Returns:
        The commit.

    Raises:
        OSError: If there is no token, or the Hub denies the request.
    """
    api = HfApi(token=token, library_name="fclm_hf")
    api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
    files = {f"data/{path.name}": path for path in sorted(options.out.glob("mattes-*.parquet"))}
    outdated = [
        path for path in api.list_repo_files(repo_id, repo_type="dataset") if OUTDATED.match(path) and path not in files
    ]
    card = [] if has_own_card(api, repo_id) else [(REPOCARD_NAME, make_card(options, summary, repo_id).encode())]
    return api.create_commit(
        repo_id,
        [
            *(CommitOperationAdd(path, content) for path, content in (*files.items(), *card)),
            *(CommitOperationDelete(path) for path in outdated),
        ],
        repo_type="dataset",
        commit_message=f"Upload mattes of {shorten(options.source.path)}",
    )


def has_own_card(api: HfApi, repo_id: str) -> bool:
    """Return whether a data set has a card that its author has written or changed."""
    if not api.file_exists(repo_id, REPOCARD_NAME, repo_type="dataset"):
        return False
    path = api.hf_hub_download(repo_id, REPOCARD_NAME, repo_type="dataset")
    return MARK not in Path(path).read_text(encoding="utf-8")


def make_card(options: BulkOptions, summary: BulkSummary, repo_id: str) -> str:
    """Return the card of the mattes of a run, with its YAML header.

    Args:
        options: Options of the run.
        summary: Its result.
        repo_id: Id of the data set on the Hub.
    """
    source = options.source
    header = DatasetCardData(
        tags=["image-matting", "fclm"],
        configs=[{"config_name": "default", "data_files": [{"split": "train", "path": "data/mattes-*.parquet"}]}],
        source_datasets=[source.path] if "/" in source.path and not Path(source.path).exists() else None,
    )
    shared = ", ".join(f"`{name}={value!r}`" for name, value in options.prompts.items())
    columns = ", ".join(f"`{role}` from column `{name}`" for role, name in source.columns.items() if role != "image")
    body = TEXT.format(
        mark=MARK,
        source=shorten(options.source.path),
        kind="Cutouts" if options.cutout else "Alpha mattes",
        mode="RGBA" if options.cutout else "8-bit gray",
        split=source.split,
        revision=f", revision `{source.revision}`" if source.revision else "",
        model=shorten(options.describe()["model"]),
        dtype=options.dtype,
        prompts=shared or columns or "those in columns with the names of prompts, if any, else the salient object",
        rows=summary.rows,
        errors=summary.errors,
        matted=summary.rows - summary.errors,
        repo=repo_id,
    )
    return f"---\n{header.to_yaml()}\n---\n{body}"


def shorten(name: str) -> str:
    """Return a name without the folders of this machine."""
    return Path(name).resolve().name if Path(name).exists() else name
