"""Token maps of every family, found by inspection, and what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import transformers
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

from sgdmc.llm.tokens import TokenMapError, token_map

# family: style, arities of the tree, tokens of the tail, for three digits
KNOWN = {
    "llama2": ("compact", (10, 10, 10), 1),
    "llama2-no-bos": ("compact", (10, 10, 10), 1),
    "mistral": ("compact", (10, 10, 10), 1),
    "gemma": ("compact", (10, 10, 10), 1),
    "qwen": ("compact", (10, 10, 10), 1),
    "llama3": ("compact", (1000,), 1),
    "gpt2": ("spaced", (10, 10, 10), 1),
    "shipped-like": ("compact", (1000,), 0),
}


@pytest.mark.parametrize("name", KNOWN)
def test_trees_of_the_families(family, name):
    tm = token_map(family(name), digits=3)
    slot = tm.slots[0]
    style, arities, tail = KNOWN[name]
    assert tm.style.name == style
    assert tuple(t.shape[1] for t in slot.tables) == arities
    assert len(slot.tail) == tail
    assert slot.paths.shape == (1000, len(arities))


@pytest.mark.parametrize("name", KNOWN)
def test_tables_lead_to_the_paths(family, name):
    slot = token_map(family(name), digits=3).slots[0]
    for state in (0, 7, 523, 999):
        node, stride = 0, 1000
        for level, table in enumerate(slot.tables):
            stride //= table.shape[1]
            child = state // stride % table.shape[1]
            assert table[node, child] == slot.paths[state, level]
            node = node * table.shape[1] + child
        assert node == state


@pytest.mark.parametrize("name", KNOWN)
@pytest.mark.parametrize("dim", [1, 2])
def test_layout_equals_the_tokenizer(family, name, dim):
    lm = family(name)
    tm = token_map(lm, digits=3, dim=dim)
    rng = np.random.default_rng(1)
    runs = [rng.integers(0, 1000, (size, dim)) for size in (5, 1, 4)]
    layout = tm.prove(runs, lm.tokenizer)
    assert lm.tokenizer(tm.style.text(runs))["input_ids"] == layout.tokens.tolist()
    np.testing.assert_array_equal(np.flatnonzero(layout.run_end), [4, 5])
    flat = np.concatenate(runs)
    for row, state in zip(layout.path_at, flat, strict=True):
        for at, slot, s in zip(row, tm.slots, state, strict=True):
            np.testing.assert_array_equal(layout.tokens[at : at + slot.depth], slot.paths[s])


def test_text_is_what_people_write(family):
    tm = token_map(family("llama2"), digits=3, dim=2)
    assert tm.style.text([np.array([[523, 187], [519, 190]])]) == "523:187,519:190,"
    spaced = token_map(family("gpt2"), digits=3)
    assert spaced.style.text([np.array([[523], [7]])]) == " 5 2 3 , 0 0 7 ,"
    labels = token_map(family("qwen"), n_states=3)
    assert labels.style.text([np.array([[0], [2]]), np.array([[1]])]) == "02\n1"


@pytest.mark.parametrize(
    ("name", "style"),
    [("llama2", "bare"), ("shipped-like", "bare"), ("llama3", "spaced"), ("gpt2", "spaced")],
)
def test_label_styles(family, name, style):
    tm = token_map(family(name), n_states=10)
    assert tm.style.name == style
    assert tm.slots[0].paths.shape == (10, 1)


def test_a_prefix_token_or_none(family):
    assert len(token_map(family("llama2"), digits=1).prefix) == 2  # beginning of text, word mark
    assert len(token_map(family("gemma"), digits=1).prefix) == 1
    assert token_map(family("qwen"), digits=1).prefix == ()


def test_supported_digits(family):
    assert [family("shipped-like").supports(k) for k in (1, 2, 3)] == [False, False, True]
    assert [family("llama3").supports(k) for k in (1, 2, 3)] == [True, True, True]


def test_unknown_text_is_refused_with_what_to_do(family):
    lm = family("shipped-like")
    with pytest.raises(TokenMapError, match=r"part of '00,' is unknown .*'<unk>'.* Use digits=3"):
        token_map(lm, digits=2)
    with pytest.raises(
        TokenMapError, match="digits must suit the tokenizer of shipped-like; got 2"
    ):
        token_map(lm, digits=2)  # the second time, too


def _other(lm, tokenizer):
    return dataclasses.replace(lm, tokenizer=tokenizer, name="odd", maps={})


def _word_level(words, pattern, **special):
    core = Tokenizer(models.WordLevel(vocab={w: i for i, w in enumerate(words)}, unk_token="?"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special)


def test_a_stand_in_that_is_not_declared_is_found_by_decoding(family):
    # "," has no token and becomes "?", which the tokenizer does not declare as special
    odd = _other(family("llama2"), _word_level([*"0123456789", "?"], r"\d|."))
    with pytest.raises(TokenMapError, match=r"',.*' comes back as '\?.*' when decoded"):
        token_map(odd, digits=1)


def test_states_of_unlike_lengths_are_refused(family):
    words = [*"0123456789", ",", "?", "12"]
    odd = _other(family("llama2"), _word_level(words, r"12|\d|,|.", unk_token="?"))
    with pytest.raises(TokenMapError, match=r"state 12 takes 2 tokens, \['12', ','\]"):
        token_map(odd, digits=2)


def test_merging_with_what_comes_before_is_refused(family):
    words = [*"0123456789", ",", "?", *(f",{d}" for d in range(10))]
    odd = _other(family("llama2"), _word_level(words, r",\d|\d|,|.", unk_token="?"))
    with pytest.raises(TokenMapError, match="is merged with what comes before it"):
        token_map(odd, digits=1)


def test_states_written_alike_are_refused(family):
    odd = _other(family("llama2"), _word_level(["d", ",", "?"], r"\d|,|."))
    with pytest.raises(TokenMapError, match="all states are written alike"):
        token_map(odd, digits=1)


def test_no_newline_means_one_run(family):
    words = [*"0123456789", ",", "?"]
    odd = _other(family("llama2"), _word_level(words, r"\d|,|.", unk_token="?"))
    tm = token_map(odd, digits=1)
    run = np.array([[1], [2]])
    assert len(tm.layout([run]).tokens) == 4
    with pytest.raises(TokenMapError, match="states must be one run, as this tokenizer has no"):
        tm.layout([run, run])


def test_a_series_that_breaks_the_map_names_the_token(family):
    lm = family("llama2")
    tm = token_map(lm, digits=2)
    broken = dataclasses.replace(
        tm, style=dataclasses.replace(tm.style, write=lambda s, _: f"{s:02d}:")
    )
    with pytest.raises(TokenMapError, match="got ':' at token 4 of the series in compact style"):
        broken.prove([np.array([[12], [34]])], lm.tokenizer)


def test_an_end_token_that_the_tokenizer_adds_is_left_out(family):
    from tokenizers import processors

    tokenizer = family("gemma").tokenizer.__class__(
        tokenizer_object=Tokenizer.from_str(family("gemma").tokenizer.backend_tokenizer.to_str()),
        eos_token="</s>",
        unk_token="<unk>",
    )
    end = tokenizer.convert_tokens_to_ids("</s>")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", end)]
    )
    tm = token_map(_other(family("gemma"), tokenizer), digits=2)
    assert tm.prefix == ()
    assert end not in tm.layout([np.array([[5]])]).tokens
