"""Terminal colours as HTML. Whatever else a program sends to steer a terminal is left out."""

from __future__ import annotations

import re
from html import escape

_SEQUENCE = re.compile(
    "\x1b\\[([0-9;]*)m"  # colours and the like
    "|\x1b\\[[0-?]*[ -/]*[@-~]"  # other orders to the terminal
    "|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?"  # titles and links
    "|\x1b[@-_]?"
    "|[\x00-\x08\x0b-\x1f\x7f\x80-\x9f]"
)
#: Eight colours that can be read on white and on black, and their bright forms.
_COLOURS = (
    *("#707070", "#d0413c", "#2f9440", "#a07a00", "#3f7fd6", "#b14fb5", "#1b93a0", "#8f8f8f"),
    *("#858585", "#e5534b", "#3fa34d", "#b58900", "#5794e8", "#c765cb", "#2aa5b3", "#9d9d9d"),
)
_SWITCHES = {
    **{1: ("font-weight", "bold"), 3: ("font-style", "italic"), 4: ("text-decoration", "underline")},
    **{22: ("font-weight", ""), 23: ("font-style", ""), 24: ("text-decoration", "")},
    **{39: ("color", ""), 49: ("background", "")},
}


def strip(text: str) -> str:
    """Return *text* without colours and control characters."""
    return _SEQUENCE.sub("", text)


def to_html(text: str) -> str:
    """Return *text* as HTML that is nothing but text in colours."""
    parts: list[str] = []
    style: dict[str, str] = {}
    start = 0
    for sequence in _SEQUENCE.finditer(text):
        parts.append(_styled(text[start : sequence.start()], style))
        start = sequence.end()
        if sequence[1] is not None:
            _apply([int(code or 0) for code in sequence[1].split(";")], style)
    parts.append(_styled(text[start:], style))
    return "".join(parts)


def _styled(text: str, style: dict[str, str]) -> str:
    if not text or not style:
        return escape(text)
    css = ";".join(f"{name}:{value}" for name, value in style.items())
    return f'<span style="{css}">{escape(text)}</span>'


def _apply(codes: list[int], style: dict[str, str]) -> None:
    while codes:
        code = codes.pop(0)
        if code == 0:
            style.clear()
        elif code in _SWITCHES:
            name, value = _SWITCHES[code]
            style[name] = value
        elif code in (38, 48):
            style["color" if code == 38 else "background"] = _extended(codes)
        else:
            for name, first, offset in (
                ("color", 30, 0),
                ("color", 90, 8),
                ("background", 40, 0),
                ("background", 100, 8),
            ):
                if first <= code < first + 8:
                    style[name] = _COLOURS[code - first + offset]
    for name in [name for name, value in style.items() if not value]:
        del style[name]


def _extended(codes: list[int]) -> str:
    """Take a colour of 256 (``5;n``) or of all (``2;r;g;b``) off *codes*."""
    if codes[:1] == [2] and len(codes) >= 4:
        red, green, blue = (min(255, part) for part in codes[1:4])
        del codes[:4]
        return f"rgb({red},{green},{blue})"
    if codes[:1] == [5] and len(codes) >= 2:
        number = min(255, codes[1])
        del codes[:2]
        if number < 16:
            return _COLOURS[number]
        if number >= 232:
            return f"rgb({', '.join([str(8 + 10 * (number - 232))] * 3)})"
        steps = (0, 95, 135, 175, 215, 255)
        number -= 16
        return f"rgb({steps[number // 36]},{steps[number // 6 % 6]},{steps[number % 6]})"
    codes.clear()
    return ""
