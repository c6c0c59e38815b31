#!/usr/bin/env python3
"""Turns a .cu file into C++ for the CUDA model: dynamic shared memory becomes a pointer."""
import re
import sys

source = open(sys.argv[1]).read()
source = re.sub(r"extern __shared__ __align__\(\d+\) uint8_t (\w+)\[\];", r"uint8_t *\1 = model_smem;", source)
open(sys.argv[2], "w").write('#line 1 "%s"\n' % sys.argv[1] + source)
