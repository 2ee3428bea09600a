// Orders and reports that arrive once and in order over a link that may lose, repeat or cut off:
// numbers from 1, resend until acknowledged, cumulative acknowledgements (go-back-N).
//
//   SendQueue    push -> due(now) -> frames ... acknowledge(through)
//   ReceiveGate  admit(sequence): take | duplicate | gap; then acknowledge taken() whatever the
//   verdict was
//
// Pure values without a clock: both ends' state machines hold them, and the simulator runs them. A
// gap is not asked for: the sender's resend brings what is missing, in order. A new session calls
// restart on both sides.
//
// Limits: a SendQueue holds `messages_max`; a full one refuses, which the owner treats as a lost
// peer.
#pragma once

#include <cstddef>
#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "protocol/base/assert.h"
#include "protocol/base/clock.h"
#include "protocol/base/ids.h"
#include "protocol/base/result.h"

namespace tutti::wire {

struct SendLimits {
  std::size_t messages_max = 4096;  // a gang of 1,000 ranks formed a few times over
  Duration resend_after = std::chrono::milliseconds(500);

  bool operator==(const SendLimits&) const = default;
};

template <class Message>
struct Numbered {
  Sequence sequence;
  Message message;

  bool operator==(const Numbered&) const = default;
};

template <class Message>
class SendQueue {
 public:
  explicit SendQueue(SendLimits limits = {}) : limits_(limits) {}

  // Takes the message; due() will name it. Errors: exhausted, and the message is not taken.
  Result<Sequence> push(Message message) {
    if (queue_.size() >= limits_.messages_max) {
      return Error{ErrorCode::exhausted, "too many messages without acknowledgement"};
    }
    last_ = Sequence{last_.value + 1};
    queue_.push_back({last_, std::move(message)});
    return last_;
  }

  // What is to be sent now, in order: everything not sent yet, or everything unacknowledged once
  // `resend_after` has passed without progress. The caller sends all of it (a send may still be
  // lost).
  std::vector<Numbered<Message>> due(Instant now) {
    std::size_t from = sent_;
    if (sent_ > 0 && now - sent_at_ >= limits_.resend_after) from = 0;
    std::vector<Numbered<Message>> out(queue_.begin() + static_cast<std::ptrdiff_t>(from),
                                       queue_.end());
    if (!out.empty() && (from == 0 || sent_ == 0)) sent_at_ = now;
    sent_ = queue_.size();
    return out;
  }

  // When due() has something again: at once if something is unsent (an Instant of zero), nothing if
  // all is acknowledged.
  std::optional<Instant> next_due() const {
    if (queue_.empty()) return std::nullopt;
    if (sent_ < queue_.size()) return Instant{};
    return sent_at_ + limits_.resend_after;
  }

  // All up to `through` has been taken by the other side. What was never sent is not acknowledged,
  // whatever is claimed. `now` restarts the wait for the rest when this is progress.
  void acknowledge(Sequence through, Instant now) {
    bool progress = false;
    while (sent_ > 0 && queue_.front().sequence <= through) {
      queue_.pop_front();
      --sent_;
      progress = true;
    }
    if (progress) sent_at_ = now;
  }

  // A new session that is told everything again: what is unacknowledged is numbered anew from 1 and
  // is due at once.
  void restart() {
    last_ = Sequence{};
    sent_ = 0;
    for (Numbered<Message>& entry : queue_) {
      last_ = Sequence{last_.value + 1};
      entry.sequence = last_;
    }
  }

  // Takes back what `unwanted` names, as long as nothing was sent since restart(): numbers have no
  // gaps.
  template <class Unwanted>
  void take_back(const Unwanted& unwanted) {
    TUTTI_ASSERT(sent_ == 0);
    std::erase_if(queue_, [&](const Numbered<Message>& entry) { return unwanted(entry.message); });
    restart();
  }

  // A new session for which everything is derived again: forgets all, counts from 1.
  void clear() {
    queue_.clear();
    last_ = Sequence{};
    sent_ = 0;
  }

  // Everything unacknowledged, oldest first.
  const std::deque<Numbered<Message>>& unacknowledged() const { return queue_; }
  std::size_t size() const { return queue_.size(); }
  bool empty() const { return queue_.empty(); }
  Sequence last() const { return last_; }

  bool operator==(const SendQueue&) const = default;

 private:
  SendLimits limits_;
  std::deque<Numbered<Message>> queue_;
  std::size_t sent_ = 0;  // the first so many of queue_ have been sent at least once
  Instant sent_at_;       // when the last full (re)send began, or the last progress was seen
  Sequence last_;
};

class ReceiveGate {
 public:
  enum class Verdict {
    take,       // the next one: act on it, then acknowledge
    duplicate,  // taken before: acknowledge again, do nothing
    gap,        // something before it is missing: drop it
  };

  Verdict admit(Sequence sequence) {
    if (sequence.value == taken_.value + 1) {
      taken_ = sequence;
      return Verdict::take;
    }
    return sequence.value <= taken_.value ? Verdict::duplicate : Verdict::gap;
  }

  // Cumulative: everything up to here has been taken.
  Sequence taken() const { return taken_; }

  void restart() { taken_ = Sequence{}; }

  bool operator==(const ReceiveGate&) const = default;

 private:
  Sequence taken_;
};

}  // namespace tutti::wire
