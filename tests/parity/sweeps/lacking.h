// Of sweeps over all ops: those that the suite's device does not have.
#pragma once

#include "tests/parity/harness.h"

namespace tutti::kernels::parity {

// Whether there is no such op (kernels/ops/without_cuda.txt), which is said.
inline bool is_lacking(const Result<>& ran) {
  const bool lacking =
      single().device != nullptr && !ran && ran.error().code == ErrorCode::unsupported;
  if (lacking) WARN("skipped: " << ran.error().message);
  return lacking;
}

}  // namespace tutti::kernels::parity
