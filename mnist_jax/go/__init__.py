"""Go: the rules, what a chain of stones can do, game records, and the planes that a network sees.

`rules.py` is what a move does; `ladders.py` and `eyes.py` read ahead and look for eyes; `sgf.py`
reads records of games; `planes.py` makes AlphaGo's 48 planes of a position, in Python, and
`records.py` those of a position, or of all positions of many games, in C++ (`planes.cc`) where
there is a compiler.

A point is a number, `row * size + column`, from the top left corner; None is a pass.
"""
