// What a device refuses of an op that it otherwise has: a form of its arguments.
//
// `what` is "ops: form", a line of kernels/ops/without_cuda.txt: the lint fails one that is not
// there, one there that nothing refuses, and a refusal in other words.
#pragma once

#include <string>

#include "protocol/base/error.h"

namespace tutti::kernels {

inline Error not_on_device(const char* what) {
  return {ErrorCode::unsupported, std::string(what) + " on CPUs only"};
}

}  // namespace tutti::kernels
