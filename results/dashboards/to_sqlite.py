"""Write the rows of a sweep that count into SQLite: `python to_sqlite.py results/<sweep> sweep.db`."""

import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pandas

rows = pandas.read_csv(Path(sys.argv[1]) / "results.csv")
last = rows.groupby(["candidate", rows["trial"] == 0])["attempt"].transform("max")
with closing(sqlite3.connect(sys.argv[2])) as database, database:
    rows[rows["attempt"] == last].to_sql("results", database, if_exists="replace", index=False)
