#include "ops/cli/client/watch.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>

#include <thread>

#include "ops/cli/client/fields.h"
#include "ops/cli/client/progress_writer.h"
#include "ops/cli/text/progress.h"
#include "ops/cli/text/table.h"
#include "protocol/base/clock.h"
#include "protocol/spec/parse.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

constexpr std::chrono::milliseconds kHold{1'000};  // the coordinator holds an empty answer
constexpr std::chrono::milliseconds kPause{
    100};  // between polls that came back at once with nothing

std::string job_target(std::uint64_t job) { return fmt::format("/api/v1/jobs/{}", job); }

struct Page {
  std::string next;  // where the next page begins; opaque
  bool end = false;
  std::size_t count = 0;
};

// A cursor as it goes into a query: a number, or a text of letters that need no escape.
std::string cursor_of(const json::value& answer, const std::string& after) {
  const json::value& next = member_of(answer, "next");
  if (next.is_string()) return text_of(answer, "next");
  return next.is_number() ? std::to_string(whole_of(answer, "next")) : after;
}

// One page of a stream, from `after`, held back for `hold` while there is nothing.
Result<Page> read_page(Api& api, const StreamOptions& options, const std::string& after,
                       std::chrono::milliseconds hold,
                       const std::function<void(const json::value&)>& take) {
  const std::string target =
      fmt::format("{}?after={}&wait_ms={}{}{}", options.target, after, hold.count(),
                  options.query.empty() ? "" : "&", options.query);
  const Result<json::value> answer = api.get_within(target, hold);
  if (!answer) return answer.error();
  const json::array& records = list_of(*answer, options.list);
  for (const json::value& record : records) take(record);
  return Page{cursor_of(*answer, after), flag_of(*answer, "end"), records.size()};
}

Result<json::value> follow_training(Api& api, Session& session, std::uint64_t id) {
  Progress progress;
  ProgressWriter writer(session);
  const StreamOptions steps{job_target(id) + "/steps", "", "steps", Follow::yes, "0", nullptr};
  std::string after = "0";
  while (true) {
    const Result<json::value> job = api.get(job_target(id));
    if (!job) return job.error();
    progress.set_job(*job);
    writer.update(progress);
    // The hold is short while there is a line to keep alive, so that recoveries show at once.
    const Result<Page> page =
        read_page(api, steps, after, kHold / 2, [&](const json::value& record) {
          progress.add_step(record);
          if (session.json()) print(json_line(record));
        });
    if (!page) return page.error();
    after = page->next;
    if (page->end || (is_terminal(*job) && page->count == 0)) {
      Result<json::value> last = api.get(job_target(id));
      if (!last) return last;
      progress.set_job(*last);
      writer.close(progress);
      if (is_terminal(*last)) return last;
    }
    if (page->count == 0) std::this_thread::sleep_for(kPause);
  }
}

Result<json::value> follow_output(Api& api, Session& session, std::uint64_t id, LogPrefix prefix) {
  LogLines lines(prefix);
  const StreamOptions logs{job_target(id) + "/logs", "", "chunks", Follow::yes, "0", nullptr};
  const Result<> read = read_stream(api, logs, [&](const json::value& chunk) {
    print(session.json() ? json_line(chunk) : lines.add(chunk));
  });
  if (!read) return read.error();
  print(lines.rest());
  return wait_for_end(api, id, std::nullopt);
}

}  // namespace

LogPrefix log_prefix_of(const json::value& job) {
  // The number of ranks that it has now is no more than it may have.
  const Result<spec::JobSpec> spec = spec::parse_job_spec(text_of(job, "spec"));
  return spec && spec->resources.ranks_max > 1 ? LogPrefix::rank : LogPrefix::none;
}

int exit_code_of_job(const json::value& job) {
  if (has(job, "exit_code")) return static_cast<int>(whole_of(job, "exit_code"));
  return text_of(job, "state") == "done" ? kDone : kJobFailed;
}

Result<json::value> wait_for_end(Api& api, std::uint64_t id,
                                 std::optional<std::chrono::milliseconds> timeout) {
  const Instant until = monotonic_now() + timeout.value_or(std::chrono::hours(24 * 365));
  const StreamOptions events{job_target(id) + "/events", "", "events", Follow::yes, "0", nullptr};
  std::string after = "0";
  while (true) {
    Result<json::value> job = api.get(job_target(id));
    if (!job || is_terminal(*job)) return job;
    const auto left = std::chrono::milliseconds(to_ms(until - monotonic_now()));
    if (left.count() <= 0) {
      return Error{ErrorCode::deadline_exceeded,
                   fmt::format("job {} is still {}", id, text_of(*job, "state"))};
    }
    const Result<Page> page =
        read_page(api, events, after, std::min(left, kHold * 10), [](const json::value&) {});
    if (!page) return page.error();
    after = page->next;
    if (page->count == 0) std::this_thread::sleep_for(std::min(left, kPause));
  }
}

Result<json::value> follow_job(Api& api, Session& session, std::uint64_t id) {
  const Result<json::value> job = api.get(job_target(id));
  if (!job) return job;
  api.set_patience(kWatchPatience);
  if (text_of(*job, "kind") == "train") return follow_training(api, session, id);
  return follow_output(api, session, id, log_prefix_of(*job));
}

std::string describe_end(const json::value& job) {
  std::string text = fmt::format("job {} {}: {}", whole_of(job, "id"), text_of(job, "name"),
                                 text_of(job, "state"));
  const std::int64_t began = whole_of(job, "started_unix_ms", whole_of(job, "submitted_unix_ms"));
  if (has(job, "ended_unix_ms") && began > 0) {
    const double ms = static_cast<double>(whole_of(job, "ended_unix_ms") - began);
    text += " after " + print_duration(ms / 1000);
  }
  if (whole_of(job, "step") > 0) text += fmt::format(", step {}", whole_of(job, "step"));
  const json::value& failure = member_of(job, "failure");
  const std::string why =
      failure.is_string() ? text_of(job, "failure") : text_of(failure, "message");
  if (!why.empty()) text += ": " + why;
  return text;
}

void say_that_it_goes_on(std::uint64_t job) {
  fail(kDone,
       fmt::format(
           "job {0} goes on: `tutti wait {0} -f` shows it again, `tutti cancel {0}` ends it", job));
}

Result<> read_stream(Api& api, const StreamOptions& options,
                     const std::function<void(const json::value&)>& take) {
  std::string after = options.after;
  const bool follow = options.follow == Follow::yes;
  while (true) {
    const Result<Page> page =
        read_page(api, options, after, follow ? kHold * 10 : std::chrono::milliseconds(0), take);
    if (!page) return page.error();
    if (follow) api.set_patience(kWatchPatience);
    after = page->next;
    if (options.reached != nullptr) *options.reached = after;
    if (page->count > 0) continue;
    if (page->end || !follow) return {};
    std::this_thread::sleep_for(kPause);
  }
}

}  // namespace tutti::cli
