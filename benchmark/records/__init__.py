"""What runs and probes leave behind, and how it is read. Nothing here needs torch.

files     the files of a run, and how they are written; offered here, by their own names
reader    any tree of run folders -> pandas tables
profile   which cells a matrix has
results   everything that findings and figures are made of, read once
protocol  the version of the rules by which it was measured
"""

from .files import *  # noqa: F403
