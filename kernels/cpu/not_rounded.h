// The answer of products that have no rounded form, in a scope of rounding.h: those that they stand
// for are rounded there, and would have other bits.
#pragma once

#include <string>

#include "kernels/tensor/rounding.h"
#include "protocol/base/result.h"

namespace tutti::kernels {

inline Result<> not_rounded(const char* op) {
  if (!RoundingScope::in_use()) return {};
  return Error{ErrorCode::unsupported, std::string(op) + ": it has no rounded form"};
}

}  // namespace tutti::kernels
