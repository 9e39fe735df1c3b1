"""Small tokenizers of every kind that decoders use, trained on a few sentences."""

from __future__ import annotations

from functools import cache

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from qr_core.mini import embedded_model
from tests.helpers import DOCUMENTS

TEXTS = [d.text for d in DOCUMENTS] * 20 + [
    "Please find information that are relevant to the following query in the paragraphs above.",
    "Here are some paragraphs: [1] [2] [3] Query: N/A Who built the bridge? What did the baker set out?",
    "user assistant system date think true false\n\n",
] * 10
ASCII = [chr(code) for code in range(33, 127)]
CONTROLS = ["<s>", "</s>", "<|im_start|>", "<|im_end|>"]
LLAMA3_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def _byte_level(split: str | None, nfc: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    if nfc:
        tokenizer.normalizer = normalizers.NFC()
    parts = [pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=split is None)]
    if split:
        parts.insert(0, pre_tokenizers.Split(Regex(split), "isolated"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _metaspace_bpe(first: bool) -> Tokenizer:
    """SentencePiece BPE with byte fallback, as Llama 2 (normaliser) and Mistral (pre-tokenizer) have it."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    if first:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    else:
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    bytes_ = [f"<0x{i:02X}>" for i in range(256)]
    # Trained on words: a sentence without a split would become one token.
    words = [f" {word}".replace(" ", "▁") for text in TEXTS for word in text.split()]
    training = Tokenizer(models.BPE(unk_token="<unk>"))
    training.train_from_iterator(
        words,
        trainers.BpeTrainer(vocab_size=700, special_tokens=["<unk>", "<s>", "</s>", *bytes_], show_progress=False),
    )
    import json

    spec = json.loads(tokenizer.to_str())
    trained = json.loads(training.to_str())
    spec["model"] |= {"vocab": trained["model"]["vocab"], "merges": trained["model"]["merges"]}
    return Tokenizer.from_str(json.dumps(spec))


def _unigram() -> Tokenizer:
    """A Unigram vocabulary that holds the end-of-text string as a piece."""
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    trainer = trainers.UnigramTrainer(
        vocab_size=500,
        initial_alphabet=ASCII,
        special_tokens=["<unk>", "<s>", "</s>"],
        unk_token="<unk>",
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _wordpiece() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=600, initial_alphabet=ASCII, special_tokens=["[UNK]", "[SEP]"], show_progress=False
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def _gemma() -> Tokenizer:
    """SentencePiece BPE without a first blank, whose line breaks and runs of blanks are added tokens, as in Gemma."""
    tokenizer = _metaspace_bpe(first=False)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    runs = ["\n" * n for n in range(1, 4)] + ["▁" * n for n in range(2, 5)]
    tokenizer.add_tokens([AddedToken(run, special=False, normalized=False) for run in runs])
    tokenizer.add_tokens([AddedToken("<table>", special=False, normalized=False)])
    return tokenizer


def _neox() -> Tokenizer:
    """Byte-level BPE with runs of blanks as added tokens, as in GPT-NeoX."""
    tokenizer = _byte_level(None, nfc=False)
    tokenizer.add_tokens([AddedToken(" " * n, special=False, normalized=True) for n in range(8, 1, -1)])
    return tokenizer


KINDS = {
    "gpt2": lambda: _byte_level(None, nfc=False),
    "llama3": lambda: _byte_level(LLAMA3_SPLIT, nfc=False),
    "qwen": lambda: _byte_level(LLAMA3_SPLIT, nfc=True),
    "llama2": lambda: _metaspace_bpe(first=False),
    "mistral": lambda: _metaspace_bpe(first=True),
    "unigram": _unigram,
    "wordpiece": _wordpiece,
    "gemma": _gemma,
    "neox": _neox,
}


@cache
def made(kind: str) -> PreTrainedTokenizerFast:
    """The tokenizer of a kind, with control tokens, a plain added token and a begin-of-text token."""
    tokenizer = KINDS[kind]()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in CONTROLS])
    tokenizer.add_tokens([AddedToken("<think>", special=False, normalized=False)])
    if kind != "wordpiece":
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token={"wordpiece": "[UNK]", "gpt2": None, "llama3": None, "qwen": None, "neox": None}.get(kind, "<unk>"),
        clean_up_tokenization_spaces=False,
    )


def framing_tokenizer() -> PreTrainedTokenizerFast:
    """The embedded model's vocabulary, with a token before and one after each text, as encoders have them."""
    tokenizer = AutoTokenizer.from_pretrained(embedded_model())
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 101), ("[SEP]", 102)]
    )
    tokenizer.cls_token, tokenizer.sep_token = "[CLS]", "[SEP]"
    return tokenizer
