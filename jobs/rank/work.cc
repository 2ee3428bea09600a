#include "jobs/rank/work.h"

#include <algorithm>
#include <cstdlib>

#include "jobs/rank/serve_work.h"
#include "jobs/rank/train_work.h"
#include "kernels/tensor/thread_pool.h"
#include "protocol/base/log.h"

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

std::string device_of_rank(const wire::StartRank& order) {
  const char* const name = std::getenv("TUTTI_DEVICE");
  if (name == nullptr || *name == '\0') return "cpu";
  return name == std::string_view("gpu") ? "gpu:" + std::to_string(order.slot) : name;
}

Result<std::unique_ptr<kernels::Device>> open_rank_device(const wire::StartRank& order,
                                                          kernels::Precision precision) {
  auto device = kernels::open_device(device_of_rank(order), precision);
  if (device && *device != nullptr) {
    TUTTI_LOG_INFO("rank", "computes on {} ({}), numerics profile {}", (*device)->name(),
                   device_of_rank(order), (*device)->profile());
  }
  return device;
}

Result<> check_profile(const wire::StartRank& order, std::string_view own) {
  if (order.profile.empty() || order.profile == own) return {};
  return Error{ErrorCode::stale, "the job's numerics profile is " + order.profile +
                                     ", and this rank computes in " + std::string(own) +
                                     ": start its worker again"};
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

wire::FailureClass failure_of_group(ErrorCode code) {
  return code == ErrorCode::corrupt ? wire::FailureClass::own : wire::FailureClass::none;
}

std::optional<Finished> end_of_device(kernels::Device* device, std::uint64_t step) {
  if (device == nullptr) return std::nullopt;
  // Once a device has failed, each call says so; this one waits for nothing.
  const auto answers = device->free_bytes();
  if (answers || answers.error().code != ErrorCode::unavailable) return std::nullopt;
  return Finished{step, wire::FailureClass::infrastructure, answers.error().message};
}

Finished end_of_job(const Error& error, std::uint64_t step) {
  if (error.code != ErrorCode::exhausted) return {step, failure_of(error.code), error.message};
  return {step, failure_of(ErrorCode::invalid_argument), "out of memory: " + error.message};
}

}  // namespace tutti::rank
