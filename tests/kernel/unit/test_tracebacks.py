"""Frames that led into a cell are cut off."""

from __future__ import annotations

import pytest

from shoal_kernel.tracebacks import trim


def test_what_led_into_the_cell_is_cut_off() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        exec(compile("def f():\n    1 / 0\nf()", "<here>", "exec"), {})
    trimmed = trim(caught.value.__traceback__, "<here>")
    assert trimmed is not None and trimmed.tb_next is not None
    assert (trimmed.tb_frame.f_code.co_name, trimmed.tb_lineno) == ("<module>", 3)
    assert (trimmed.tb_next.tb_frame.f_code.co_name, trimmed.tb_next.tb_lineno) == ("f", 2)


def test_nothing_is_left_of_another_files_traceback() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        1 / 0  # noqa: B018
    assert trim(caught.value.__traceback__, "<elsewhere>") is None and trim(None, "<here>") is None
