"""Laws of the tokenizer: lossless, its ids the library's, broken files refused in one line."""

import pathlib

import pytest
import tokenizers

from circuitjax.tasks.tokenizer import BOS, Tokenizer


@pytest.mark.parametrize("text", ["", "x = [a, b]\n", "    for x in y:\n", "é 中 \U0001f600\t\r\n"])
def test_decode_undoes_encode(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_batch_is_one_by_one(tokenizer: Tokenizer) -> None:
    texts = ["a", "", "def f(x):\n    return x\n", "'a b'"]
    assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]


def test_token_ids_are_those_of_the_library(tokenizer: Tokenizer) -> None:
    library = tokenizers.Tokenizer.from_str(tokenizer.json)
    vocabulary = library.get_vocab(with_added_tokens=True)
    assert tokenizer.vocab_size == len(vocabulary)
    assert tokenizer.bos_id == vocabulary[BOS] == tokenizer.token_id(BOS)
    for text in (" =", "):\n", ".add", " ", "\n"):
        ids = tokenizer.encode(text)
        assert tokenizer.token_id(text) == (ids[0] if len(ids) == 1 else None)
    assert tokenizer.token_id("no such token at all") is None


def test_a_file_gives_the_tokenizer_it_was_written_from(
    tokenizer: Tokenizer, tmp_path: pathlib.Path
) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.json, encoding="utf-8")
    assert Tokenizer.from_file(path) == tokenizer


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": "1.0"}', '"\nBPE"'])
def test_broken_json_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ValueError, match="not a tokenizer") as caught:
        Tokenizer.from_json(text)
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_bos_is_refused() -> None:
    plain = tokenizers.Tokenizer(tokenizers.models.BPE())
    with pytest.raises(ValueError, match="endoftext"):
        Tokenizer.from_json(plain.to_str())


def test_a_missing_file_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"none\.json"):
        Tokenizer.from_file(tmp_path / "none.json")


def test_half_a_character_is_refused_naming_the_text(tokenizer: Tokenizer) -> None:
    for encode in (tokenizer.encode, lambda text: tokenizer.encode_batch(["fine", text])):
        with pytest.raises(
            ValueError, match=r"x = .* holds half a character at character 5"
        ) as error:
            encode("x = '\ud83d")
        assert error.value.args[0].isascii()  # a console can print it


def test_a_batch_of_any_size_is_encoded_in_blocks(tokenizer: Tokenizer, monkeypatch) -> None:
    from circuitjax.tasks import tokenizer as module

    monkeypatch.setattr(module, "_BLOCK", 3)
    monkeypatch.setattr(module, "_REMEMBERED", 10)
    for start in range(0, 40, 7):
        texts = [f"name{i} = {i}" for i in range(start, start + 8)] + ["name3 = 3"] * 2
        assert tokenizer.encode_batch(texts) == [tokenizer.encode(text) for text in texts]
