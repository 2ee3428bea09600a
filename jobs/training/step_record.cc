#include "jobs/training/step_record.h"

#include <fmt/core.h>

#include <cmath>

namespace tutti::training {

// fmt prints the shortest decimal that reads back as the same double.
namespace {

std::string number(double value) {
  return std::isfinite(value) ? fmt::format("{}", value) : std::string("null");
}

}  // namespace

std::string to_json(const StepRecord& record) {
  std::string scaled;
  if (record.loss_scale != 0) {
    scaled = fmt::format(R"(,"loss_scale":{},"skipped":{})", record.loss_scale, record.skipped);
  }
  return fmt::format(
      R"({{"step":{},"loss":{},"grad_norm":{},"rate":{},"tokens":{},"seconds":{:.6f},)"
      R"("generation":{},"ranks":{},"weights":"{}","profile":"{}"{}}})",
      record.step, number(record.loss), number(record.grad_norm), record.rate, record.tokens,
      record.seconds, record.generation, record.ranks, kernels::to_string(record.weights),
      record.profile, scaled);
}

}  // namespace tutti::training
