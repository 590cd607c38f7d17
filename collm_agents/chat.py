"""From texts to token ids and back: the chat template at every turn, token in and token out.

For teams. An agent's memory is a `History` of token ids that only grows: what it was shown and what it said.
A turn adds a delta (the template's pieces around the new observation); past tokens are never made anew, so
training sees exactly what was sampled. Texts of environments and partners are encoded with special tokens
split into ordinary ones, so no text can forge a role or a turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from collm_envs.errors import InputError

# Stand-ins for contents while the template's own pieces are cut out. Private-use characters: no template or
# tokenizer gives them a meaning.
_SEEN, _SAID, _LATER = "\ue000seen\ue000", "\ue000said\ue000", "\ue000later\ue000"
_PLAIN = "\n"


REMEMBERED = 8192  # texts whose token ids a format keeps


class ChatFormat:
    """The pieces of one tokenizer's chat template, and which tokens may be drawn.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: `auto` uses the tokenizer's chat template where it has one, else plain text with a newline
            between entries; `none` always uses plain text.
        enable_thinking: passed to the template.
        rewriting: for a template that renders past turns otherwise than they were generated: `error`, or `keep`
            past turns as generated.
        multi_turn: whether later turns will be needed; a template that cannot render them is then an error.
        stop_ids: further tokens that end a reply (a model's generation config may name several).

    Raises:
        InputError: when the tokenizer has no end token, or the template cannot be used.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        template: str = "auto",
        enable_thinking: bool = False,
        rewriting: str = "error",
        multi_turn: bool = True,
        stop_ids: Sequence[int] = (),
    ) -> None:
        self.tokenizer = tokenizer
        # What this tokenizer puts before any text, a BOS token or nothing: models that were trained with it compute
        # badly without. Templates bring their own.
        first = tuple(tokenizer("").input_ids[:1])
        self.beginning = first if first == (tokenizer.bos_token_id,) else ()
        self._known: dict[str, tuple[int, ...]] = {}  # siblings and later passes see the same texts again
        if tokenizer.eos_token_id is None:
            raise InputError(f"tokenizer of {tokenizer.name_or_path!r} has no end-of-sequence token")
        self.templated = template == "auto" and bool(tokenizer.chat_template)
        self._kwargs = {"enable_thinking": enable_thinking}
        if self.templated:
            pieces = self._template_pieces(rewriting, multi_turn)
        else:
            pieces = (tokenizer.bos_token or "", _PLAIN, _PLAIN, _PLAIN)
        open_first, ask, close, self._ask_later = (self._encode_template(piece) for piece in pieces)
        self._open, self._ask, self._close = open_first, ask, close
        # What a template is built of is a control token, whatever the tokenizer calls it.
        added = getattr(tokenizer, "added_tokens_decoder", {})
        used = {id for piece in (open_first, ask, close, self._ask_later) for id in piece}
        self._control = {
            i: str(token.content) for i, token in added.items() if i in used and not token.special
        }
        special = special_ids(tokenizer) | set(self._control)
        self.stop_ids = {tokenizer.eos_token_id} | {i for i in stop_ids if i < len(tokenizer)}
        if self.templated and close and close[0] in special:
            self.stop_ids.add(close[0])
        self.banned = torch.zeros(len(tokenizer), dtype=torch.bool)
        self.banned[[i for i in special - self.stop_ids if i < len(tokenizer)]] = True

    def _render(self, contents: Sequence[str]) -> str:
        messages = [
            {"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)
        ]
        try:
            return self.tokenizer.apply_chat_template(
                messages, tokenize=False, add_generation_prompt=True, **self._kwargs
            )
        except Exception as error:  # templates are programs and fail in their own ways
            raise InputError(f"chat template of {self.tokenizer.name_or_path!r} failed: {error}") from error

    def _template_pieces(self, rewriting: str, multi_turn: bool) -> tuple[str, str, str, str]:
        first = self._render([_SEEN])
        before, found, ask = first.partition(_SEEN)
        if not found:
            raise InputError(
                f"chat template of {self.tokenizer.name_or_path!r} does not show the user's message"
            )
        try:
            second = self._render([_SEEN, _SAID, _LATER])
        except InputError:
            if multi_turn:
                raise
            return before, ask, "", ""
        said, found, rest = second.partition(_SAID)
        between, found_later, ask_later = rest.partition(_LATER)
        if not multi_turn:  # later turns are not needed, but what closes a reply ends it (Gemma: not its eos)
            return before, ask, between if found and found_later else "", ""
        if not found or not found_later:
            raise InputError(f"chat template of {self.tokenizer.name_or_path!r} drops past turns")
        if said != first and rewriting != "keep":
            raise InputError(
                f"chat template of {self.tokenizer.name_or_path!r} rewrites past turns; "
                "team.rewriting_template=keep leaves them as they were generated"
            )
        return before, ask, between, ask_later

    def _encode_template(self, text: str) -> tuple[int, ...]:
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else ()

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a text of an environment or partner; what looks like a special token is plain text."""
        if text not in self._known:
            if len(self._known) >= REMEMBERED:
                self._known.clear()
            self._known[text] = self._encode(text)
        return self._known[text]

    def _encode(self, text: str) -> tuple[int, ...]:
        if not text:
            return ()
        for token in self._control.values():
            if token in text:
                # Cut inside the token's name: neither part is the token, and the text stays the same.
                cut = text.index(token) + 1
                return self._encode(text[:cut]) + self._encode(text[cut:])
        return tuple(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"])

    def decode(self, reply: Sequence[int]) -> str:
        """Text of a reply, its end token left out."""
        return self.tokenizer.decode(
            [i for i in reply if i not in self.stop_ids],
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )

    def around(self, history: History) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The template's token ids before and after the next observation of a history."""
        if not history.ids:
            return self._open, self._ask
        # The reply may have drawn the closing token itself.
        drawn = bool(self._close) and history.ids[-1] == self._close[0] and history.ids[-1] in self.stop_ids
        return (self._close[1:] if drawn else self._close), self._ask_later


def special_ids(tokenizer: Any) -> set[int]:
    """Ids of all special tokens: those with a named role and, as in Llama 3, those that merely exist."""
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return set(tokenizer.all_special_ids) | {int(id) for id, token in added.items() if token.special}


@dataclass(frozen=True)
class History:
    """One agent's memory as token ids; grows, never changes.

    Attributes:
        ids: everything so far, replies included.
        clipped: observations that were cut to fit the context.
    """

    ids: tuple[int, ...] = ()
    clipped: int = 0

    def observe(self, text: str, form: ChatFormat, limit: int, overflow: str) -> History | None:
        """The memory with a new observation, up to where the reply begins.

        Args:
            text: the observation.
            form: the tokenizer's format.
            limit: most token ids that may stand before the reply.
            overflow: what to do beyond it: `clip` the observation in its middle, `stop`, or `error`.

        Returns:
            The new memory, or None where the episode has to stop.

        Raises:
            InputError: under `error`.
        """
        before, after = form.around(self)
        ids = form.encode(text)
        room = limit - len(self.ids) - len(before) - len(after)
        if len(ids) <= room:
            return replace(self, ids=self.ids + before + ids + after)
        if overflow == "error":
            need = len(self.ids) + len(before) + len(ids) + len(after)
            raise InputError(
                f"a prompt of {need} tokens leaves no room for a reply (limit {limit}); see team.prompt_overflow"
            )
        if overflow == "stop" or room < 2:
            return None
        head = (room + 1) // 2
        ids = ids[:head] + ids[len(ids) - (room - head) :]
        return History(self.ids + before + ids + after, self.clipped + 1)

    def reply(self, ids: Sequence[int]) -> History:
        """The memory with the agent's own reply."""
        return replace(self, ids=self.ids + tuple(ids))
