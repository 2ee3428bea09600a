#include "jobs/rank/work.h"

#include "jobs/rank/serve_work.h"
#include "jobs/rank/train_work.h"

namespace tutti::rank {

std::span<const WorkKind> work_kinds() {
  static constexpr WorkKind kRows[] = {
      {"train", make_train_work},
      {"serve", make_serve_work},
  };
  return kRows;
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
