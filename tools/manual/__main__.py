"""`make generate`: write the parts of the manual that are made from the program."""

from __future__ import annotations

from manual.generated import ROOT, write

for path in write():
    print(path.relative_to(ROOT))
