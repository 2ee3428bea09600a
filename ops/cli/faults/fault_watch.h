// What a reader of the API is told while faults befall a job, gathered into a history.
//
// Every stream is read twice: as it comes, by cursor and over restarts of the coordinator, and at
// the end from its beginning. Both must agree (I15).
//
// Threads: one. Limits: looks at nodes by kNodeLooksMax different ones, kLogBytesCompared of each
// process's output; of each stream what the cluster keeps.
#pragma once

#include <boost/json/value.hpp>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "ops/cli/client/api.h"
#include "ops/cli/client/watch.h"
#include "ops/cli/faults/history.h"
#include "protocol/base/clock.h"

namespace tutti::cli {

inline constexpr std::size_t kNodeLooksMax = 10'000;

class FaultWatch {
 public:
  FaultWatch(Api& api, FaultHistory& history) : api_(api), history_(history) {}

  // Before anything is submitted: from which event on, and how far the clocks are apart. Errors:
  // those of the API.
  Result<> begin();
  // From here on this job is looked at.
  void attend(std::uint64_t job);

  // One look: the job and its steps each time, the rest now and then. Whether somebody answered.
  bool look();
  // The newest answer; null before the first.
  const boost::json::value& job() const { return job_; }
  // The step records that came since the last call, as they are.
  std::vector<boost::json::value> take_steps() { return std::exchange(fresh_steps_, {}); }
  // How long nobody has answered.
  Duration away() const;

  // Reads all streams again, from their beginning to their end.
  Result<> finish();

  // This machine's time as the coordinator's.
  std::int64_t now_unix_ms() const { return wall_now().unix_ms + clock_ahead_ms_; }

  // A request whose answer is counted (I18).
  Result<boost::json::value> ask(const std::string& target);
  // The same for one that was made elsewhere.
  void count(std::string_view what, const Result<>& answer);

 private:
  std::string target(std::string_view stream) const;
  bool look_at_job();
  Result<> read_events(std::string& after, std::vector<EventSeen>& into);
  Result<> read_new_steps();
  Result<> read_log(std::string& after, LogSeen& into, Follow follow);
  void look_at_nodes();

  Api& api_;
  FaultHistory& history_;
  std::uint64_t id_ = 0;
  boost::json::value job_;
  std::vector<boost::json::value> fresh_steps_;
  std::string first_event_ = std::string(1, '0');
  std::string event_ = std::string(1, '0');
  std::string step_ = std::string(1, '0');
  std::string log_ = std::string(1, '0');
  std::string log_middle_;  // a cursor that was given out
  LogSeen log_before_middle_;
  std::int64_t clock_ahead_ms_ = 0;
  Instant answered_{};
  Instant next_events_{};
  Instant next_rest_{};
};

}  // namespace tutti::cli
