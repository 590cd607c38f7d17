"""The built-in model's tokenizer: one token per word of the mini environments, and any text besides.

For `warmstart`, which builds it once; a run only loads the files. A word has the same token wherever it
stands: an invisible space is put before the text and behind each newline, so that a letter shown in the middle
of a prompt and the same letter at the start of a reply are equal tokens, which makes copying easy to learn.
Decoding takes these spaces out again, so every text comes back exactly; what no piece covers goes as bytes.
"""

from __future__ import annotations

import hashlib
import string
from collections.abc import Sequence
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from collm_envs.registry import EnvSpec, list_envs

UNKNOWN, PAD, BOS, EOS = "<unk>", "<pad>", "<s>", "</s>"
ROLES = ("<system>", "<user>", "<assistant>")
SPECIAL = (UNKNOWN, PAD, BOS, EOS, *ROLES)
RESERVED = tuple(f"<reserved_{i}>" for i in range(40))

# No piece of the vocabulary that holds both "<" and a letter can match inside one of these parts, so a text
# that spells a special token or a byte token is read as plain characters.
_PARTS = Regex(
    r" (?:sees|says):\n"  # the end of a history's label
    r"| ?@[A-Za-z0-9_]+"  # its beginning
    r"| ?/[a-z]+"  # commands
    r"| ?[A-Za-z_][A-Za-z0-9_]*"
    r"| ?[0-9]+(?:\.[0-9]+)?"
    r"| ?[^\sA-Za-z0-9_]+"
    r"| ?\n"
    r"| +(?= )"  # indentation, but for the last space, which belongs to the word
    r"|\s"
)
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<{{ message['role'] }}>{{ message['content'] }}"
    "{% if message['role'] == 'assistant' %}</s>{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)

_LABELS = (
    *(f"agent_{i}" for i in range(8)),
    *("summary_0", "detail_1", "writer_0", "background_0", "method_1"),
    *("aux_0", "main_1", "aux_2", "aux_3", "coder_0"),
    *(f"builder_{i}" for i in range(4)),
)
# Words of feedback, and of what critics are told.
_COMMON = (
    "Try again Score score turn of level failed weak passed tests test error line task target yours partner "
    "wrong missing extra right left done need more less too many few no yes none all and or not is are to a in "
    "on you your each only last best high"
)
# For the environments to come: blocks, commands, small functions.
_BLOCKS = (
    "oak_planks spruce_planks birch_planks planks stone cobblestone stone_bricks stone_stairs oak_stairs stairs "
    "white_concrete concrete obsidian air glass brick bricks oak_log log dirt grass sand wool door torch "
    "spider spiders block blocks build place put set get wall roof base floor layer cell grid row col width "
    "height hp damage attack kill fill setblock limit left_over"
)
_CODE = (
    "def return aux aux2 aux3 main if else elif for in range while and or not True False None abs min max "
    "sum len int pow x y z n m k i j a b c f g r s t total result value lambda pass assert import python"
)
_SIGNS = "// ** == != <= >= += -= *= -> ): (): ), )) (( [] () )( ]: [: :: ... === ```"


def env_words(env: EnvSpec) -> list[str]:
    """Words that an environment names in its class method `vocabulary`; none where it has no such method."""
    named = getattr(env.env_class, "vocabulary", None)
    return list(named()) if named else []


def warm_envs() -> list[EnvSpec]:
    """The environments that the built-in model can speak: the minis and those for debugging."""
    ids = ((env, env.id) for env in list_envs())
    return [env for env, id in ids if ("-mini-" in id or id.startswith("debug/")) and "-sparse-" not in id]


def pieces() -> list[str]:
    """The whole vocabulary in the order of ids: specials, bytes, signs, words, room for later."""
    spaced = [*_COMMON.split(), *_BLOCKS.split(), *_CODE.split()]
    for env in warm_envs():
        spaced += [word for word in env_words(env) if not word.isspace()]
    spaced += [str(i) for i in range(41)] + [f"{i / 10:.1f}" for i in range(61)]
    spaced += [f"{letter}{digit}" for letter in "abcdefgh" for digit in range(1, 9)]
    spaced += [f"@{label}" for label in _LABELS] + [f"/{word}" for word in ("setblock", "fill", "kill")]
    signs = _SIGNS.split()
    printable = string.digits + string.ascii_letters + string.punctuation
    bare = [*printable, *signs, *_CODE.split(), *(f"_{i}" for i in range(10))]
    bare += [f".{i}" for i in range(10)] + ["\n", " \n", *(" " * n for n in (1, 2, 3, 4, 8))]
    bare += [" sees:\n", " says:\n"]
    words = [f" {piece}" for piece in (*printable, *signs, *sorted(set(spaced)))]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    return list(dict.fromkeys([*SPECIAL, *bytes_, *bare, *words, *RESERVED]))


def fingerprint(tokenizer: Any) -> str:
    """SHA-256 of a tokenizer's pieces in the order of their ids."""
    ordered = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    return hashlib.sha256("\x1f".join(piece for piece, _ in ordered).encode()).hexdigest()


def build_tokenizer(vocabulary: Sequence[str], context: int) -> PreTrainedTokenizerFast:
    """The tokenizer over a list of pieces; each text is cut into as few of them as possible.

    Args:
        vocabulary: pieces in the order of ids.
        context: longest sequence in tokens, as the tokenizer tells its users.
    """
    # Equal scores: the likeliest cut of a unigram model is then the one with the fewest pieces.
    core = Tokenizer(models.Unigram([(piece, -1.0) for piece in vocabulary], unk_id=0, byte_fallback=True))
    core.normalizer = normalizers.Sequence(
        [normalizers.Prepend(" "), normalizers.Replace(Regex(r"\n(?=[^\n])"), "\n ")]
    )
    core.pre_tokenizer = pre_tokenizers.Split(_PARTS, "isolated")
    core.decoder = decoders.Sequence(
        [
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Replace("\n ", "\n"),
            decoders.Strip(content=" ", left=1, right=0),
        ]
    )
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token=UNKNOWN,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        extra_special_tokens=list(ROLES),
        clean_up_tokenization_spaces=False,
        model_max_length=context,
        padding_side="left",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer
