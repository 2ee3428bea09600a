#include "ops/cli/faults/fault_watch.h"

#include <fmt/core.h>

#include <boost/json/array.hpp>

#include "ops/cli/client/fields.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

constexpr Duration kEventsEvery = std::chrono::milliseconds(200);
constexpr Duration kRestEvery = std::chrono::milliseconds(250);

}  // namespace

Result<json::value> FaultWatch::ask(const std::string& target) {
  Result<json::value> answer = api_.get(target);
  count("GET " + target, answer ? Result<>{} : Result<>(answer.error()));
  return answer;
}

void FaultWatch::count(std::string_view what, const Result<>& answer) {
  if (answer) {
    ++history_.answered;
    answered_ = monotonic_now();
    return;
  }
  switch (answer.error().code) {
    case ErrorCode::unavailable: return;  // a coordinator that is away, and comes back
    case ErrorCode::deadline_exceeded:
    case ErrorCode::corrupt:
    case ErrorCode::internal:
      if (history_.unanswered.empty()) {
        history_.unanswered = fmt::format("{}: {}", what, answer.error().message);
      }
      return;
    default: ++history_.answered; answered_ = monotonic_now();
  }
}

std::string FaultWatch::target(std::string_view stream) const {
  return fmt::format("/api/v1/jobs/{}/{}", id_, stream);
}

Result<> FaultWatch::begin() {
  const std::int64_t before = wall_now().unix_ms;
  const Result<json::value> who = ask("/api/v1/whoami");
  if (!who) return who.error();
  const std::int64_t between = (before + wall_now().unix_ms) / 2;
  clock_ahead_ms_ = whole_of(*who, "now_unix_ms", between) - between;
  // Nothing of what was before: no event is from a time to come.
  const Result<json::value> events =
      ask(fmt::format("/api/v1/events?since_unix_ms={}", now_unix_ms() + 3'600'000));
  if (!events) return events.error();
  first_event_ = event_ = std::to_string(whole_of(*events, "next"));
  return {};
}

void FaultWatch::attend(std::uint64_t job) {
  id_ = job;
  answered_ = monotonic_now();
}

Duration FaultWatch::away() const { return monotonic_now() - answered_; }

bool FaultWatch::look_at_job() {
  const Result<json::value> job = ask(fmt::format("/api/v1/jobs/{}", id_));
  if (!job) return false;
  job_ = *job;
  history_.job = job_seen(job_);
  const StateSeen state{history_.job.state, history_.job.generation};
  if (history_.states.empty() || history_.states.back() != state) history_.states.push_back(state);
  return true;
}

Result<> FaultWatch::read_events(std::string& after, std::vector<EventSeen>& into) {
  const StreamOptions options{"/api/v1/events", "", "events", Follow::no, after, &after};
  const Result<> read = read_stream(
      api_, options, [&](const json::value& event) { into.push_back(event_seen(event)); });
  count("GET /api/v1/events", read);
  return read;
}

Result<> FaultWatch::read_new_steps() {
  const StreamOptions options{target("steps"), "", "steps", Follow::no, step_, &step_};
  const Result<> read = read_stream(api_, options, [&](const json::value& step) {
    history_.steps_live.push_back(step_seen(step));
    fresh_steps_.push_back(step);
  });
  count("GET " + options.target, read);
  return read;
}

Result<> FaultWatch::read_log(std::string& after, LogSeen& into, Follow follow) {
  const StreamOptions options{target("logs"), "", "chunks", follow, after, &after};
  const Result<> read =
      read_stream(api_, options, [&](const json::value& chunk) { add_log(into, chunk); });
  count("GET " + options.target, read);
  return read;
}

void FaultWatch::look_at_nodes() {
  const Result<json::value> nodes = ask("/api/v1/nodes");
  if (!nodes) return;
  ++history_.node_looks;
  for (const json::value& node : list_of(*nodes, "nodes")) {
    if (history_.nodes.size() < kNodeLooksMax) history_.nodes.insert(node_seen(node));
  }
}

bool FaultWatch::look() {
  if (!look_at_job()) return false;
  const bool trains = history_.spec && history_.spec->kind == spec::JobKind::train;
  if (trains && !read_new_steps()) return false;
  const Instant now = monotonic_now();
  if (now >= next_events_) {
    next_events_ = now + kEventsEvery;
    if (!read_events(event_, history_.events_live)) return false;
  }
  if (now >= next_rest_) {
    next_rest_ = now + kRestEvery;
    look_at_nodes();
    if (!read_log(log_, history_.log_live, Follow::no)) return false;
    // The first cursor with something behind it: from there the log is read again at the end.
    if (log_middle_.empty() && !history_.log_live.text.empty()) {
      log_middle_ = log_;
      log_before_middle_ = history_.log_live;
    }
  }
  return true;
}

Result<> FaultWatch::finish() {
  if (!look_at_job()) return Error{ErrorCode::unavailable, "the coordinator does not answer"};
  history_.kept_spec = text_of(job_, "spec");
  const bool ended = is_terminal(job_);
  const Follow follow = ended ? Follow::yes : Follow::no;
  const StreamOptions steps{target("steps"), "", "steps", follow, "0", nullptr};
  const Result<> read = read_stream(
      api_, steps, [&](const json::value& step) { history_.steps.push_back(step_seen(step)); });
  count("GET " + steps.target, read);
  if (!read) return read;
  std::string from(1, '0');
  if (Result<> log = read_log(from, history_.log, follow); !log) return log;
  history_.log_resumed = log_before_middle_;
  from = log_middle_.empty() ? std::string(1, '0') : log_middle_;
  if (Result<> log = read_log(from, history_.log_resumed, follow); !log) return log;
  from = first_event_;
  if (Result<> events = read_events(from, history_.events); !events) return events;
  // Of a job that goes on, what came after this is not what was judged.
  if (ended && !look_at_job())
    return Error{ErrorCode::unavailable, "the coordinator does not answer"};
  return {};
}

}  // namespace tutti::cli
