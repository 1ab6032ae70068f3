"""The shipped model's vocabulary: one token a number, one token a label.

==============  ===========  ====================================================
ids             text         meaning
==============  ===========  ====================================================
0 … 999         ``"523,"``   a state of three digits, with the comma that ends it
1000 … 1999     ``"523:"``   a coordinate, but the last, of a joint state
2000 … 2009     ``"7"``      a state of a finite chain (at most ten states)
2010            ``"\\n"``     a new run starts
2011            ``"<s>"``    start of the text, put in front by the tokenizer
2012            ``"<pad>"``  padding
==============  ===========  ====================================================
"""

from __future__ import annotations

import json
from pathlib import Path

N_NUMBERS = 1000
LAST = 0
INNER = 1000
LABEL = 2000
BREAK = 2010
BOS = 2011
PAD = 2012
VOCABULARY = 2013

PATTERN = r"\d{3}[,:]|\d|\n"

__all__ = [
    "BOS",
    "BREAK",
    "INNER",
    "LABEL",
    "LAST",
    "N_NUMBERS",
    "PAD",
    "VOCABULARY",
    "token_texts",
    "write_tokenizer",
]


def token_texts() -> list[str]:
    r"""Return the text of every token, in the order of their ids.

    Returns
    -------
    list of str, length 2013

    Examples
    --------
    >>> texts = token_texts()
    >>> texts[523], texts[1523], texts[2007], texts[2011]
    ('523,', '523:', '7', '<s>')
    """
    numbers = [f"{value:03d}" for value in range(N_NUMBERS)]
    texts = [f"{text}," for text in numbers] + [f"{text}:" for text in numbers]
    return [*texts, *(str(label) for label in range(10)), "\n", "<s>", "<pad>"]


def write_tokenizer(folder: str | Path, *, max_length: int = 2048) -> None:
    """Write ``tokenizer.json`` and ``tokenizer_config.json`` in the Hub's format.

    Parameters
    ----------
    folder : path
        An existing folder.
    max_length : int, default 2048
        Longest context the model was trained on, in tokens.

    Notes
    -----
    ``transformers.AutoTokenizer`` loads the result without remote code. Text that is not made of
    the tokens above has no place in the vocabulary and becomes ``<pad>``.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = {text: index for index, text in enumerate(token_texts())}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PATTERN), behavior="isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", BOS)]
    )
    tokenizer.decoder = decoders.Fuse()
    tokenizer.add_special_tokens(["<s>", "<pad>"])
    folder = Path(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<s>",
        "pad_token": "<pad>",
        "unk_token": "<pad>",
        "clean_up_tokenization_spaces": False,
        "model_max_length": max_length,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
