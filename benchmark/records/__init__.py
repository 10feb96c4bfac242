"""What runs and probes leave behind, and how it is read. Nothing here needs torch.

files     the files of a run's folder
reader    any tree of run folders -> pandas tables
profile   which cells a matrix has
results   everything that findings and figures are made of, read once
protocol  the version of the rules by which it was measured
"""

from .files import (
    PACKAGES,
    RECORD_VERSION,
    SAMPLES,
    SLOTS_FILE,
    Status,
    Summary,
    clear,
    environment,
    file_name,
    peak_memory_mb,
    read_json,
    read_summary,
    remove_parts,
    run_folder,
    save_state,
    write_json,
    write_text,
)

__all__ = [
    "PACKAGES", "RECORD_VERSION", "SAMPLES", "SLOTS_FILE", "Status", "Summary", "clear", "environment", "file_name",
    "peak_memory_mb", "read_json", "read_summary", "remove_parts", "run_folder", "save_state", "write_json",
    "write_text",
]
