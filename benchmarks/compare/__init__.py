"""The comparison of HyperDreamBooth with what else people use: same photos, same checkpoint, same clock.

    python run.py compare OUT_DIR

`__main__.py` is the command, `rows.py` lists who takes part, one file per method says how it learns, `cell.py` measures
one method on one person in a process of its own, `table.py` and `figures.py` show what came out.
"""
