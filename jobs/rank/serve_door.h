// The door of a serving rank: an encrypted endpoint that takes requests in and gives answers out.
// On loopback, or at the address under which other machines reach this one (TUTTI_DATA_HOST).
//
//   gateway --Generate, CancelGenerate--> [endpoint, its own thread] --inbox--> computing thread
//           <--Generated------------------ give()                   <---------
//
// Threads: open, wait, take, give and close on the computing thread; wake from any.
// Limits: kInboxMax requests wait; those beyond are answered at once (exhausted).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "protocol/base/clock.h"
#include "protocol/base/result.h"
#include "protocol/wire/serve_messages.h"

namespace tutti::rank {

inline constexpr std::size_t kInboxMax = 1024;

struct Answer {
  std::string peer;
  wire::Generated generated;
};

struct Arrived {
  std::string peer;
  wire::ToServer message;
};

class ServeDoor {
 public:
  // Errors: the endpoint's.
  static Result<std::unique_ptr<ServeDoor>> open();
  ~ServeDoor();

  const std::string& address() const;
  const std::string& public_key() const;

  // Returns once something arrived or wake() was called.
  void wait();
  void wake();
  // Whether something has arrived, at the latest after `within`; woken or not.
  bool wait_within(Duration within);
  std::vector<Arrived> take();

  // Sends all, with one turn of the endpoint's thread. The places in `answers` of those that could
  // not be sent: the peer is gone or does not read.
  std::vector<std::size_t> give(std::span<const Answer> answers);

 private:
  struct Impl;
  explicit ServeDoor(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tutti::rank
