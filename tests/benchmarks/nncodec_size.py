"""Prints what ISO/IEC 15938-17 (Fraunhofer's nncodec) makes of integer tensors: `python nncodec_size.py FILE.npz`.

A script of its own, since nncodec wants an older numpy: `tests/benchmarks/export.py --nncodec PYTHON` runs it under the
Python of another environment. Prints bytes, and seconds to encode and to decode, as JSON.
"""

import contextlib
import json
import os
import sys
import tempfile
import time

import numpy as np
from nncodec import nnc

QP = 0
"""Quantisation step 1: whole numbers stay as they are."""


def main() -> None:
    tensors = {name: array.astype(np.float32) for name, array in np.load(sys.argv[1]).items()}
    best = None
    for optimised in (True, False):
        with (
            tempfile.TemporaryDirectory() as folder,
            open(os.devnull, "w") as quiet,  # noqa: PTH123
            contextlib.redirect_stdout(quiet),
        ):
            path = f"{folder}/model.nnc"
            start = time.process_time()
            nnc.compress(
                dict(tensors), bitstream_path=path, qp=QP, nonweight_qp=QP, use_dq=False, opt_qp=False, bnf=False,
                lsa=False, param_opt=optimised, row_skipping=True, codebook_mode=0, verbose=False,
            )  # fmt: skip
            middle = time.process_time()
            found = nnc.decompress(path, verbose=False)
            end = time.process_time()
            size = os.path.getsize(path)  # noqa: PTH202
        lossless = all(np.array_equal(np.rint(found[name]), array) for name, array in tensors.items())
        if lossless and (best is None or size < best["bytes"]):
            best = {"bytes": size, "encode_seconds": middle - start, "decode_seconds": end - middle}
    print(json.dumps(best))


if __name__ == "__main__":
    main()
