"""Writes the .npy files beside it, with NumPy: python3 make.py"""
import os

import numpy as np

here = os.path.dirname(os.path.abspath(__file__))
np.save(os.path.join(here, "u2.npy"), np.arange(300, dtype=np.uint16) * 7 % 301)
np.save(os.path.join(here, "u4.npy"), np.array([0, 70000, 4294967295], dtype=np.uint32))
np.save(os.path.join(here, "i4.npy"), np.array([5, -1, 9], dtype=np.int32))
np.save(os.path.join(here, "i8.npy"), np.arange(3, dtype=np.int64))
np.save(os.path.join(here, "matrix.npy"), np.zeros((2, 3), dtype=np.uint16))
np.save(os.path.join(here, "big_endian.npy"), np.zeros(3, dtype=">u2"))
