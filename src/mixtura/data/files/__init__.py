"""Files of every kind: ``DOORS`` says by their ending what can be read from them and written to them."""

from __future__ import annotations

from mixtura.data.files import arrays, delimited, image_files, json_records, parquet
from mixtura.data.files.door import Door

#: ending → door; a folder has no ending
DOORS: dict[str, Door] = {
    ".csv": delimited.CSV,
    ".tsv": delimited.TSV,
    ".parquet": parquet.PARQUET,
    ".json": json_records.JSON,
    ".jsonl": json_records.JSON_LINES,
    ".npy": arrays.NPY,
    ".npz": arrays.NPZ,
    ".zip": image_files.ZIP,
    "": image_files.FOLDER,
}
