"""The first lines of a training: run, data, model, plan and device."""

from typing import Mapping, Sequence

from rich.text import Text

from detector.loggers.styled_lines import TITLE, Block, labelled, wrap

INDENT = 8  # columns of the titles


def run_header(sections: Mapping[str, Sequence[str]]) -> Block:
    """Returns the block of these sections: each title, and beside it its sentences; sections without any are left out.

    Sentences with runs of spaces are rows of a table, and are not broken.
    """
    def build(width: int | None) -> list[Text]:
        lines: list[Text] = []
        for title, sentences in sections.items():
            shown = [line for sentence in sentences if sentence for line in wrap_sentence(sentence, width)]
            block = [line if not index else Text.assemble(" " * INDENT, line) for index, line in enumerate(shown)]
            lines += labelled(title, block, INDENT) if block else []
        if width is not None and lines:
            rule = Text("─" * width, TITLE)
            lines = [rule, *lines, rule]
        return lines
    return build


def wrap_sentence(sentence: str, width: int | None) -> list[Text]:
    """Returns a sentence within the columns beside the titles."""
    if width is None or "  " in sentence:
        return [Text(sentence)]
    return wrap(sentence, width - INDENT)
