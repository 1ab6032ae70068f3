"""Which model reads the series: the shipped one, a local folder or a Hub id."""

from __future__ import annotations

import importlib.resources
import importlib.util
import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NO_LIMIT = 2**31
_CACHE_SIZE = 4
_loaded: dict[tuple[Any, ...], LanguageModel] = {}


@dataclass(frozen=True, eq=False)
class LanguageModel:
    """A causal language model with its tokenizer, ready to be read.

    Make one with `load_model`, or with `LanguageModel.wrap` from objects that you already hold.

    Attributes
    ----------
    model : transformers.PreTrainedModel
        In evaluation mode.
    tokenizer : transformers.PreTrainedTokenizerBase
    name : str
        What was loaded: ``"shipped"``, the folder or the Hub id.
    device, dtype : str
        Where token ids go in, such as ``"cpu"`` or ``"cuda:0"``; and the weights' type.
    max_context : int
        Largest number of tokens that the model reads; ``2**31`` where its configuration has none.
    packed : bool
        Whether attention takes a tree mask. If not, branches are evaluated in batches, slower.
    maps : dict
        Token maps found so far (see `sgdmc.llm.tokens.token_map`).
    """

    model: Any
    tokenizer: Any
    name: str
    device: str
    dtype: str
    max_context: int
    packed: bool
    maps: dict[Any, Any] = field(default_factory=dict, repr=False)

    @classmethod
    def wrap(cls, model: Any, tokenizer: Any, *, name: str = "custom") -> LanguageModel:
        """Take a model and a tokenizer of ``transformers`` as they are, on the model's device.

        Whether the model's attention takes a tree mask is tried out on a few tokens; a warning
        says if it does not. A model that cannot go on from a copy of what it has read, as some
        recurrent ones, is refused with a ``ValueError``.
        """
        from sgdmc.llm.batched import takes_batches, takes_tree_mask
        from sgdmc.llm.context import model_device, model_dtype

        model.eval()
        config = model.config.get_text_config(decoder=True)
        packed = takes_tree_mask(model)
        if not packed and not takes_batches(model):
            raise ValueError(
                f"model must go on from a copy of its cache as it reads a whole text; got {name} "
                f"({type(model).__name__}), which gives other logits. Use a transformer model."
            )
        if not packed:
            warnings.warn(
                f"the attention of {name} ({type(model).__name__}, "
                f"{getattr(config, '_attn_implementation', None)}) takes no tree mask: branches "
                "are evaluated in batches, which is slower. Load it with "
                "attn_implementation='sdpa' or 'eager' if it has them.",
                RuntimeWarning,
                stacklevel=2,
            )
        return cls(
            model=model,
            tokenizer=tokenizer,
            name=name,
            device=str(model_device(model)),
            dtype=str(model_dtype(model)).removeprefix("torch."),
            max_context=int(getattr(config, "max_position_embeddings", None) or NO_LIMIT),
            packed=packed,
        )

    def describe(self) -> str:
        """Return one line for reports: name, size, type, device, context."""
        size = sum(p.numel() for p in self.model.parameters())
        context = "unlimited" if self.max_context == NO_LIMIT else f"{self.max_context} tokens"
        return (
            f"{self.name} ({type(self.model).__name__}, {_human(size)} parameters), "
            f"{self.dtype} on {self.device}, context {context}"
        )

    def supports(self, digits: int) -> bool:
        """Return whether numbers of ``digits`` digits can be read with this tokenizer."""
        from sgdmc.llm.tokens import TokenMapError, token_map

        try:
            token_map(self, digits=digits)
        except TokenMapError:
            return False
        return True


def load_model(
    name: str | Path | LanguageModel = "shipped",
    *,
    device: str | None = None,
    dtype: str | None = None,
    device_map: str | Mapping[str, Any] | None = None,
    local_files_only: bool | None = None,
) -> LanguageModel:
    """Load a causal language model from safetensors, without running any code that comes with it.

    The last four models loaded are kept: asking for the same again costs nothing.

    Parameters
    ----------
    name : str, path or LanguageModel
        ``"shipped"``: the small model that comes with the package. A folder with ``config.json``,
        ``*.safetensors`` and a tokenizer. A Hub id ``"organisation/name"``: the only case in which
        the network is used. A `LanguageModel` comes back as it is.
    device : str, optional
        By default ``"cuda"`` where there is one, else ``"cpu"``.
    dtype : str, optional
        ``"float32"``, ``"bfloat16"`` or ``"float16"``. By default float32 on a CPU and for the
        shipped model, else the type of the weights as stored.
    device_map : str or mapping, optional
        ``"auto"`` spreads a model over several GPUs (needs the package ``accelerate``).
    local_files_only : bool, optional
        True keeps a Hub id to what was downloaded before.

    Returns
    -------
    LanguageModel

    Raises
    ------
    FileNotFoundError
        The folder does not exist, or a Hub id has no such files.
    ImportError
        ``device_map`` without the package ``accelerate``.
    ConnectionError
        A Hub id cannot be reached and was not downloaded before.
    ValueError
        ``name`` is none of the three kinds, has no safetensors weights, no tokenizer or needs
        code of its own; ``dtype`` or ``device`` is unknown.

    Examples
    --------
    >>> load_model("no/such/folder")
    Traceback (most recent call last):
    ...
    FileNotFoundError: name must be a folder that exists; got no/such/folder. ...
    """
    if isinstance(name, LanguageModel):
        return name
    source, local = _locate(name)
    key = (source, _stamp(source), device, dtype, repr(device_map), local_files_only)
    if key not in _loaded:
        found = _load(
            str(name),
            source,
            device=device,
            dtype=dtype,
            device_map=device_map,
            local_files_only=True if local else bool(local_files_only),
        )
        while len(_loaded) >= _CACHE_SIZE:
            _loaded.pop(next(iter(_loaded)))
        _loaded[key] = found
    return _loaded[key]


def shipped_folder() -> Path:
    """Return the folder of the model that comes with the package."""
    return Path(str(importlib.resources.files("sgdmc").joinpath("shipped")))


def _locate(name: str | Path) -> tuple[str, bool]:
    """Return what to load and whether it is a folder of this machine."""
    if not isinstance(name, str | Path):
        raise TypeError(
            f"name must be 'shipped', a folder, a Hub id or a LanguageModel; got "
            f"{type(name).__name__}. Use LanguageModel.wrap(model, tokenizer) for loaded objects."
        )
    if name == "shipped":
        folder = shipped_folder()
        if not (folder / "config.json").exists():
            raise FileNotFoundError(
                f"name must be a model that is installed; got 'shipped', which has no config.json "
                f"in {folder}. Reinstall the package, or train one with `sgdmc pretrain`."
            )
        return str(folder), True
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder.resolve()), True
    text = str(name)
    if isinstance(name, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise FileNotFoundError(
            f"name must be a folder that exists; got {text}. Check the path, or give a Hub id "
            "such as 'meta-llama/Llama-3.2-1B'."
        )
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        raise ValueError(
            f"name must be 'shipped', a folder or a Hub id 'organisation/name'; got {text!r}. "
            "Check the spelling."
        )
    return text, False


def _stamp(source: str) -> int:
    """Return when a folder was last written, so that a retrained model is loaded anew."""
    files = list(Path(source).glob("*.safetensors"))
    return max((f.stat().st_mtime_ns for f in files), default=0)


def usable_device(device: str | None) -> str:
    """Check that this machine has a device; ``cuda`` if there is one, else ``cpu``, by default.

    Raises
    ------
    ValueError
        If torch knows no such device, or it is not there.
    """
    import torch

    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        asked = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f"device must be cpu, cuda or cuda:1, say; got {device!r}.") from error
    if asked.type == "cuda" and (asked.index or 0) >= torch.cuda.device_count():
        raise ValueError(
            f"device must be one that this machine has; got {device!r}. Use device='cpu', or "
            "install a build of torch for your GPU."
        )
    return device


def _load(
    name: str,
    source: str,
    *,
    device: str | None,
    dtype: str | None,
    device_map: str | Mapping[str, Any] | None,
    local_files_only: bool,
) -> LanguageModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = usable_device(device)
    if dtype not in (None, "float32", "bfloat16", "float16"):
        raise ValueError(
            f"dtype must be 'float32', 'bfloat16' or 'float16'; got {dtype!r}. "
            "Leave it out for the usual choice."
        )
    if dtype is None:
        dtype = "float32" if device == "cpu" or name == "shipped" else "auto"
    if device_map is not None and importlib.util.find_spec("accelerate") is None:
        raise ImportError(
            f"device_map must be left out without the package accelerate; got {device_map!r}. "
            "Install it with `pip install accelerate`, or use device=."
        )
    options: dict[str, Any] = {
        "local_files_only": local_files_only or not _hub_answers(),
        "trust_remote_code": False,
    }
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, **options)
        with _quiet():
            model = AutoModelForCausalLM.from_pretrained(
                source, use_safetensors=True, dtype=dtype, device_map=device_map, **options
            )
    except (OSError, ValueError) as error:
        raise _explain(name, source, error) from error
    if device_map is None:
        model.to(device)
    return LanguageModel.wrap(model, tokenizer, name=name)


def _hub_answers() -> bool:
    """Return whether the Hub can be reached: its client retries for minutes where it cannot."""
    import socket
    from urllib.parse import urlsplit
    from urllib.request import getproxies

    from huggingface_hub import constants

    if getproxies():
        return True
    host = urlsplit(constants.ENDPOINT)
    port = host.port or (443 if host.scheme == "https" else 80)
    try:
        socket.create_connection((host.hostname or "", port), timeout=5).close()
    except OSError:
        return False
    return True


class _quiet:
    """Hold back the progress bars of transformers while weights are read from disk."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.shown = logging.is_progress_bar_enabled()
        logging.disable_progress_bar()

    def __exit__(self, *args: object) -> None:
        from transformers.utils import logging

        if self.shown:
            logging.enable_progress_bar()


def _explain(name: str, source: str, error: Exception) -> Exception:
    """Return the error that says what is missing and what to do."""
    first = str(error).strip().splitlines()[0]
    folder = Path(source)
    if folder.is_dir() and not list(folder.glob("*.safetensors")):
        return ValueError(
            f"name must be a folder with *.safetensors weights; got {source}, which has none. "
            "Convert others with model.save_pretrained(folder)."
        )
    if folder.is_dir() or isinstance(error, ValueError):
        return ValueError(
            f"name must be a causal language model with its tokenizer that needs no code of its "
            f"own; got {source}: {first} Save both in one folder with save_pretrained(folder)."
        )
    if "404" in first or "is not a local folder" in first or "gated" in first:
        return FileNotFoundError(
            f"name must be a model that the Hub has and that you may read; got {name!r}: {first} "
            "Check the id, and log in where the model is gated."
        )
    return ConnectionError(
        f"name must be a Hub id that can be reached or was downloaded before; got {name!r}: "
        f"{first} Connect to the network, or give the folder of a model on this machine."
    )


def _human(count: int) -> str:
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        if count >= size:
            return f"{count / size:.1f}{unit}"
    return str(count)
