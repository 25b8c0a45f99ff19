"""Questions from files of any kind: one reader of tables, which imports of measurements use too."""
