// One request on its way: filled by the gateway's actor, emptied by the coroutine that answers the
// client.
//
// Threads: any. Limits: kPartsMax parts wait (a client that does not read); then the request ends
// with an error.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <variant>

#include "coordinator/gateway/gateway_messages.h"

namespace tutti::gateway {

class OpenRequest {
 public:
  static constexpr std::size_t kPartsMax = 65'536;
  // An Error, or a Generated with `finish`, is the last one.
  using Part = std::variant<wire::Generated, Error>;

  explicit OpenRequest(RequestId id) : id_(id) {}

  RequestId id() const { return id_; }

  // Adds a part and wakes the reader; false once nothing more is taken.
  bool add(wire::Generated part) {
    const bool last = !part.finish.empty();
    return put(std::move(part), last);
  }
  void fail(const Error& error) { put(error, true); }

  // The next part, or nothing yet: then `wake` is called once there is one, from any thread.
  std::optional<Part> next(std::function<void()> wake) {
    const std::lock_guard lock(guard_);
    if (parts_.empty()) {
      wake_ = std::move(wake);
      return std::nullopt;
    }
    Part part = std::move(parts_.front());
    parts_.pop_front();
    return part;
  }

 private:
  bool put(Part part, bool last) {
    std::function<void()> wake;
    bool open = true;
    {
      const std::lock_guard lock(guard_);
      if (ended_) return false;
      if (!last && parts_.size() >= kPartsMax) {
        part = Error{ErrorCode::exhausted, "the client does not read its answer"};
        last = true;
      }
      ended_ = last;
      open = !last;
      parts_.push_back(std::move(part));
      wake.swap(wake_);
    }
    if (wake) wake();
    return open;
  }

  const RequestId id_;
  std::mutex guard_;
  std::deque<Part> parts_;
  std::function<void()> wake_;
  bool ended_ = false;
};

}  // namespace tutti::gateway
