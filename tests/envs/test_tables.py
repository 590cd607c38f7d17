"""Tables of words: every column fits, nothing is lost."""

from collm_envs.tables import wrapped_table


def test_what_fits_is_not_wrapped_and_empty_columns_are_left_out():
    told = wrapped_table(("a", "none", "b"), [("x", "", "long word"), ("yy", "", "z")], 40)
    assert told.splitlines() == ["a   b", "--  ---------", "x   long word", "yy  z"]


def test_the_widest_column_is_wrapped_and_lines_of_a_cell_are_kept():
    told = wrapped_table(("a", "b"), [("one", "two words and more words to wrap"), ("x\ny", "z")], 25)
    assert told.splitlines()[2:] == ["one  two words and more", "     words to wrap", "x    z", "y"]


def test_a_word_longer_than_its_column_is_cut_and_nothing_is_lost():
    told = wrapped_table(("a", "b"), [("k", "x" * 50)], 20)
    assert all(len(own) <= 20 for own in told.splitlines())
    assert told.count("x") == 50


def test_a_table_without_rows_is_empty():
    assert wrapped_table(("a", "b"), []).strip() == ""
