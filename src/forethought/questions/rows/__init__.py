"""A table file -> batches of named cells, read as a stream, without interpreting the cells.

The size of a line, a cell, an item and a batch is bounded, so that a small file cannot cause large memory use.
"""

from .batch import Batch, Row, Wanted, choose_column, find_column, has_columns, no_such_column, size_of, text_of
from .jsons import parse_json
from .reading import FORMATS, MAX_TEXT, Source, Table, find_file, read_batches, standard_input

__all__ = [
    "FORMATS",
    "MAX_TEXT",
    "Batch",
    "Row",
    "Source",
    "Table",
    "Wanted",
    "choose_column",
    "find_column",
    "find_file",
    "has_columns",
    "no_such_column",
    "parse_json",
    "read_batches",
    "size_of",
    "standard_input",
    "text_of",
]
