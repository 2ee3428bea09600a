#include "jobs/training/step_record.h"

#include <fmt/core.h>

namespace tutti::training {

// fmt prints the shortest decimal that reads back as the same double.
std::string to_json(const StepRecord& record) {
  return fmt::format(
      R"({{"step":{},"loss":{},"grad_norm":{},"rate":{},"tokens":{},"seconds":{:.6f},)"
      R"("generation":{},"ranks":{},"weights":"{}","profile":"{}"}})",
      record.step, record.loss, record.grad_norm, record.rate, record.tokens, record.seconds,
      record.generation, record.ranks, kernels::to_string(record.weights), record.profile);
}

}  // namespace tutti::training
