#include "jobs/rank/work.h"

#include <algorithm>

#include "jobs/rank/serve_work.h"
#include "jobs/rank/train_work.h"
#include "kernels/tensor/thread_pool.h"

namespace tutti::rank {

std::span<const WorkKind> work_kinds() {
  static constexpr WorkKind kRows[] = {
      {"train", make_train_work},
      {"serve", make_serve_work},
  };
  return kRows;
}

int threads_of(const wire::StartRank& order) {
  constexpr std::uint32_t kMost = kernels::ThreadPool::kThreadsMax;
  return static_cast<int>(std::clamp(order.threads, 1U, kMost));
}

wire::FailureClass failure_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::exhausted:
    case ErrorCode::unavailable:
    case ErrorCode::deadline_exceeded:
    case ErrorCode::aborted:
    case ErrorCode::stale: return wire::FailureClass::infrastructure;
    case ErrorCode::internal: return wire::FailureClass::own;
    default: return wire::FailureClass::user;
  }
}

}  // namespace tutti::rank
