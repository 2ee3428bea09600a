// Staying with a job until it ends: its progress shown, its logs printed, its exit code passed on.
//
// Coordinator restarts are ridden out: nobody answering is an error only after kWatchPatience.
#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "ops/cli/client/api.h"
#include "ops/cli/session.h"
#include "ops/cli/text/log_lines.h"

namespace tutti::cli {

inline constexpr std::chrono::seconds kWatchPatience{60};

// Whether the lines of this job's output need their rank's name.
LogPrefix log_prefix_of(const boost::json::value& job);

// What `tutti wait` ends with.
int exit_code_of_job(const boost::json::value& job);

// The job once it is terminal. Errors: those of the API; deadline_exceeded after `timeout`.
Result<boost::json::value> wait_for_end(Api& api, std::uint64_t job,
                                        std::optional<std::chrono::milliseconds> timeout);

// Shows progress (train) or output (run, serve) until the job ends; gives the job.
Result<boost::json::value> follow_job(Api& api, Session& session, std::uint64_t job);

// One sentence of a job's end: `job 7 kjv: done after 1 m 42 s, step 480`.
std::string describe_end(const boost::json::value& job);

// To somebody who stops watching it.
void say_that_it_goes_on(std::uint64_t job);

// Calls `take` for each record of a stream (`steps`, `events`) from `after` on, until `end` or,
// unless `follow`, until there are no more now. `list` is the field that holds the records.
enum class Follow { no, yes };
struct StreamOptions {
  std::string target;  // without query
  std::string query;   // "rank=1", or empty
  std::string list;
  Follow follow = Follow::no;
  std::string after = "0";         // a cursor that was given out
  std::string* reached = nullptr;  // where to go on
};
Result<> read_stream(Api& api, const StreamOptions& options,
                     const std::function<void(const boost::json::value&)>& take);

}  // namespace tutti::cli
