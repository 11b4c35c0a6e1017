"""Laws of the tokenizer: lossless, its ids the library's, broken files refused in one line."""

import json
import pathlib

import pytest
import tokenizers

from circuitjax.tasks.english.vocabulary import single
from circuitjax.tasks.tokenizer import BOS, Tokenizer, with_bos


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


def pieces(prefix: bool = True) -> tokenizers.Tokenizer:
    """A tokenizer of pieces, `▁` for a space and bytes where there is no piece, as Llama 2 has it."""
    words = ["<unk>", "<s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    words += ["▁", *"aMryJohn", "▁a", "ar", "▁M", "▁Mar", "▁Mary", "▁J", "oh", "▁Joh", "▁John"]
    merges = [("▁", "a"), ("a", "r"), ("▁", "M"), ("▁M", "ar"), ("▁Mar", "y")]
    merges += [("▁", "J"), ("o", "h"), ("▁J", "oh"), ("▁Joh", "n")]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(words))}
    rust = tokenizers.Tokenizer(
        tokenizers.models.BPE(
            vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True
        )
    )
    rust.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(
        prepend_scheme="first" if prefix else "never", split=False
    )
    decoders = tokenizers.decoders
    rust.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first"), decoders.Fuse()]
    )
    rust.add_special_tokens(["<unk>", "<s>"])
    return rust


@pytest.mark.parametrize("prefix", [True, False])
def test_a_piece_is_looked_up_within_a_text(prefix: bool) -> None:
    rust = pieces(prefix)
    tokenizer = Tokenizer.from_json(rust.to_str())
    assert tokenizer.bos_id == rust.token_to_id("<s>")
    for name in ("Mary", "John"):
        index = rust.token_to_id(f"▁{name}")
        assert tokenizer.token_id(f" {name}") == index
        prompt = "a Mary a"
        assert tokenizer.encode(f"{prompt} {name}") == [*tokenizer.encode(prompt), index]
        assert tokenizer.encode_after([f" {name}"]) == [[index]]
    assert tokenizer.token_id("\n") == rust.token_to_id("<0x0A>")
    assert tokenizer.token_id("M") == rust.token_to_id("M")
    assert single(tokenizer, ["Mary", "John", "Zoe"], 2, "names") == ("Mary", "John")


def test_a_template_says_what_begins_a_text() -> None:
    rust = pieces()
    rust.add_tokens(["<|endoftext|>"])
    text = with_bos(rust.to_str(), "<s>")
    tokenizer = Tokenizer.from_json(text)
    assert tokenizer.bos_id == rust.token_to_id("<s>")  # rather than `<|endoftext|>`
    assert tokenizer.encode("a Mary") == Tokenizer.from_json(rust.to_str()).encode("a Mary")
    with pytest.raises(ValueError, match="has no token '<bos>' to begin a text with"):
        with_bos(text, "<bos>")


def test_words_and_ids_with_gaps() -> None:
    words = {"[UNK]": 0, "one": 3, "two": 7, "<s>": 90}
    rust = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    rust.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = Tokenizer.from_json(rust.to_str())
    assert tokenizer.ids == (0, 3, 7, 90)
    assert tokenizer.vocab_size == 91
    assert tokenizer.bos_id == 90
    assert tokenizer.token_id(" two") == tokenizer.token_id("two") == 7
    assert tokenizer.encode("one two") == [3, 7]
    assert tokenizer.decode([1]) == ""  # a gap


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


def test_a_prefix_that_merges_lack_is_refused_before_the_library_ends_the_process():
    """The library cuts as many bytes off a merge's second piece, whatever they are, and aborts."""
    rust = tokenizers.Tokenizer(
        tokenizers.models.BPE({BOS: 0, "a": 1, "\u0120": 2, "a\u0120": 3}, [("a", "\u0120")])
    )
    rust.add_special_tokens([BOS])
    text = rust.to_str()
    assert Tokenizer.from_json(text).encode("a")
    for prefix in ("x", "\u0120\u0120"):
        bad = json.loads(text)
        bad["model"]["continuing_subword_prefix"] = prefix
        for ascii_only in (True, False):
            written = json.dumps(bad, ensure_ascii=ascii_only)
            for escaped in (written, written.replace("continuing_", "\\u0063ontinuing_")):
                with pytest.raises(ValueError, match="does not go on with the") as caught:
                    Tokenizer.from_json(escaped)
                assert "\n" not in str(caught.value)


def test_a_tokenizer_without_tokens_for_a_text_is_one_line():
    rust = tokenizers.Tokenizer(tokenizers.models.WordLevel({BOS: 0, "b": 1}, unk_token="?"))
    rust.add_special_tokens([BOS])
    with pytest.raises(ValueError, match=r"makes no tokens of a text: .*UNK"):
        Tokenizer.from_json(rust.to_str())
