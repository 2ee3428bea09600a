// What a committed step leaves behind: one JSON object on one line, the same in every rank but for
// `seconds`. A loss or norm that is not finite is null, which only a skipped step's may be.
#pragma once

#include <cstdint>
#include <string>

#include "kernels/ops/weight_hash.h"

namespace tutti::training {

struct StepRecord {
  std::uint64_t step = 0;
  double loss = 0;       // mean over the step's target tokens
  double grad_norm = 0;  // of that mean's gradient, before clipping
  double rate = 0;
  std::uint64_t tokens = 0;
  double seconds = 0;
  std::uint64_t generation = 0;
  std::uint32_t ranks = 0;
  kernels::Hash128 weights;
  std::string profile = "portable";  // numerics
  float loss_scale = 0;              // of fp16; 0: losses are not scaled
  bool skipped = false;              // for gradients that are not finite: no weight changed

  bool operator==(const StepRecord&) const = default;
};

std::string to_json(const StepRecord& record);

}  // namespace tutti::training
