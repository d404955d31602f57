"""Data sets that TensorFlow Datasets (TFDS) downloads and verifies; TensorFlow is not needed."""

import base64
import json
import os
import threading
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from mnist_jax.data import files
from mnist_jax.data.files import File
from mnist_jax.data.names import DataError, DataUnavailable

_PROBE_SECONDS = 3.0
# Where TFDS registers several archives for a data set, the one that is meant.
_ARCHIVES = {
    "imagenette/160px-v2": "imagenette2-160.tgz",
    "imagenette/320px-v2": "imagenette2-320.tgz",
    "glue/sst2": "SST-2.zip",
}


def folder(download_dir: str | PathLike[str] | None) -> Path:
    """Where TFDS keeps its downloads."""
    home = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(download_dir or Path(home) / "downloads").expanduser()


def find(name: str, download_dir: Path) -> list[File]:
    """A data set's files, from where TFDS has put its archives before, or by TFDS.

    Raises:
        DataError, DataUnavailable: as `fetch`; also where TFDS does not have the data set.
    """
    if name == "qmnist":
        raise DataUnavailable(
            "qmnist is not among the data sets of TFDS, which downloads the others.\n"
            "Give the folder of its files, of github.com/facebookresearch/qmnist, as data_dir."
        )
    group = name.partition("/")[0]
    archives = [
        files.single(path, filename)
        for filename, path in _archives(group, _ARCHIVES.get(name), download_dir).items()
    ]
    packed = [archive for archive in archives if files.is_archive(archive)]
    return [file for archive in packed for file in files.in_archive(archive)] or archives


def _archives(name: str, only: str | None, download_dir: Path) -> dict[str, Path]:
    # What TFDS verified is noted down, since importing TFDS takes longer than all else here.
    note = "mnist_jax_verified" if only is None else f"mnist_jax_verified-{only}"
    verified = download_dir / name / f"{note}.json"
    if verified.exists():
        paths = {file: Path(path) for file, path in json.loads(verified.read_text()).items()}
        if all(path.is_file() for path in paths.values()):
            return paths
    url_infos = _url_infos(name)
    wanted = {url: i for url, i in url_infos.items() if only in (None, _filename(url, i))}
    paths = fetch(name, wanted, download_dir)
    verified.parent.mkdir(parents=True, exist_ok=True)
    verified.write_text(json.dumps({file: str(path) for file, path in paths.items()}))
    return paths


def _url_infos(name: str) -> Mapping[str, Any]:
    import tensorflow_datasets as tfds

    return tfds.builder_cls(name).url_infos


def fetch(name: str, url_infos: Mapping[str, Any], download_dir: Path) -> dict[str, Path]:
    """Let TFDS download and verify a data set's archives, or verify those in `manual/<name>`.

    Args:
        name: the folder in `download_dir` that TFDS keeps them in.
        url_infos: TFDS's size, SHA-256 and file name of each address.
        download_dir: TFDS's folder of downloads.

    Returns:
        The archives' paths, by their file names without `.gz`.

    Raises:
        DataError: an archive's SHA-256 is not the registered one.
        DataUnavailable: an archive is not there and cannot be downloaded.
    """
    import requests
    import tensorflow_datasets as tfds

    manual_dir = download_dir / "manual" / name
    missing = [
        url
        for url, info in url_infos.items()
        if not _is_here(url, info, download_dir / name, manual_dir)
    ]
    if missing:
        _probe(name, missing[0])
    manager = tfds.download.DownloadManager(
        download_dir=download_dir,
        manual_dir=manual_dir,
        url_infos=dict(url_infos),
        dataset_name=name,
    )
    try:
        paths = manager.download({_filename(url, info): url for url, info in url_infos.items()})
    except tfds.download.download_manager.NonMatchingChecksumError as error:
        raise DataError(f"{name}: {str(error).splitlines()[0].rstrip(':')}.") from None
    except (requests.RequestException, tfds.download.DownloadError) as error:
        raise _unavailable(name, missing[0], error) from None
    return {filename.removesuffix(".gz"): Path(path) for filename, path in paths.items()}


def _filename(url: str, info: Any) -> str:
    """An archive's name, which TFDS does not have of all."""
    return info.filename or url.rpartition("/")[2]


def _is_here(url: str, info: Any, cache_dir: Path, manual_dir: Path) -> bool:
    # TFDS ends the names of its downloads with their SHA-256 in base64.
    digest = base64.urlsafe_b64encode(bytes.fromhex(info.checksum)).decode().rstrip("=")
    return (manual_dir / _filename(url, info)).exists() or any(cache_dir.glob(f"*{digest}*"))


def _probe(name: str, url: str) -> None:
    """Find out quickly and quietly whether a server answers; TFDS would try for a long time."""
    import requests

    outcome: list[Exception | None] = []

    def ask() -> None:
        try:
            requests.head(url, timeout=_PROBE_SECONDS).raise_for_status()
            outcome.append(None)
        except requests.RequestException as error:
            outcome.append(error)

    # In a thread, because looking up the server's name has no time limit of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_PROBE_SECONDS)
    error = outcome[0] if outcome else TimeoutError(f"no answer in {_PROBE_SECONDS:.0f} s")
    if error is not None:
        raise _unavailable(name, url, error)


def _unavailable(name: str, url: str, error: Exception) -> DataUnavailable:
    server, archive = url.split("/")[2], url.split("/")[-1]
    if name in ("glue", "trec"):
        what = "the folder of its files as data_dir, or take opinions."
    else:
        what = (
            "the folder of its files as data_dir (or for mnist in MNIST_JAX_DATA), or take mnist5k."
        )
    return DataUnavailable(
        f"{name} is not on this machine, and {server} cannot be reached ({type(error).__name__}).\n"
        f"Give {archive} or {what}"
    )
