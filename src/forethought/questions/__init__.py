"""Questions from files of any kind; the reader of tables is shared with imports."""
