// One request on its way: filled by the gateway's actor, emptied by the coroutine that answers the
// client.
//
// Threads: any. Limits: kPartsMax parts wait (a client that does not read); then the request ends
// with an error.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>

#include "protocol/base/error.h"
#include "protocol/base/ids.h"
#include "protocol/wire/serve_messages.h"

namespace tutti::gateway {

class OpenRequest {
 public:
  static constexpr std::size_t kPartsMax = 65'536;

  OpenRequest(JobId job, wire::Generate generate) : job_(job), generate_(std::move(generate)) {}

  JobId job() const { return job_; }
  const wire::Generate& generate() const { return generate_; }

  // Adds a part and wakes the reader. Nothing follows a part with `finish`; false once nothing is
  // taken any more.
  bool add(wire::Generated part) {
    std::function<void()> wake;
    bool open = true;
    {
      const std::lock_guard lock(guard_);
      if (finished_) return false;
      if (parts_.size() >= kPartsMax)
        part = failure({ErrorCode::exhausted, "the client does not read its answer"});
      finished_ = !part.finish.empty();
      open = !finished_;
      parts_.push_back(std::move(part));
      wake.swap(wake_);
    }
    if (wake) wake();
    return open;
  }

  void fail(const Error& error) { add(failure(error)); }

  // The next part, or nothing yet: then `wake` is called once there is one.
  std::optional<wire::Generated> next(std::function<void()> wake) {
    const std::lock_guard lock(guard_);
    if (parts_.empty()) {
      wake_ = std::move(wake);
      return std::nullopt;
    }
    wire::Generated part = std::move(parts_.front());
    parts_.pop_front();
    return part;
  }

 private:
  wire::Generated failure(const Error& error) const {
    wire::Generated part;
    part.request = generate_.request;
    part.finish = "error";
    part.error = error.message;
    part.error_code = to_string(error.code);
    return part;
  }

  const JobId job_;
  const wire::Generate generate_;
  std::mutex guard_;
  std::deque<wire::Generated> parts_;
  std::function<void()> wake_;
  bool finished_ = false;
};

}  // namespace tutti::gateway
