#include <boost/json/serialize.hpp>

#include <algorithm>
#include <optional>

#include "coordinator/api/ask.h"
#include "coordinator/api/cluster_routes.h"
#include "coordinator/api/json_views.h"
#include "coordinator/api/long_poll.h"

namespace tutti::api {

namespace asio = boost::asio;
namespace json = boost::json;
using coordinator::Event;

namespace {

constexpr std::uint64_t kWaitMsMax = 30'000;
// Output of a process on a worker that is lost never ends; so long after the job's end nobody waits
// for it any more.
constexpr std::int64_t kStreamsEndWithinMs = 10'000;
// How often a reader at the end of an ended job's streams looks again.
constexpr Duration kEndedPoll = std::chrono::milliseconds(500);
constexpr Duration kKeepAlive = std::chrono::seconds(15);

// Where a job stands, as far as its readers care.
struct JobPhase {
  bool terminal = false;
  std::int64_t ended_unix_ms = 0;

  bool long_over() const {
    return terminal && wall_now().unix_ms - ended_unix_ms > kStreamsEndWithinMs;
  }
};

struct EventsRead {
  std::vector<Event> events;
  bool end = false;  // nothing will follow
};

struct Range {
  std::uint64_t after = 0;
  Instant until;
};

Result<Range> range_of(const Call& call) {
  const Result<std::uint64_t> after = call.number("after", 0);
  if (!after) return after.error();
  const Result<std::uint64_t> wait_ms = call.number("wait_ms", 0);
  if (!wait_ms) return wait_ms.error();
  return Range{*after, monotonic_now() + std::chrono::milliseconds(std::min(*wait_ms, kWaitMsMax))};
}

Error no_job(JobId job) { return {ErrorCode::not_found, "there is no job " + to_string(job)}; }

// A job that has stored nothing so far, read from its beginning.
template <class Page>
bool nothing_yet(const Result<Page>& page, std::uint64_t after) {
  return !page && page.error().code == ErrorCode::not_found && after == 0;
}

std::string page_of(std::string_view name, std::string_view items, std::uint64_t next, bool end) {
  std::string out = "{\"";
  out.append(name).append("\":").append(items).append(",\"next\":").append(std::to_string(next));
  return out.append(",\"end\":").append(end ? "true}" : "false}");
}

class StreamRoutes : public std::enable_shared_from_this<StreamRoutes> {
 public:
  explicit StreamRoutes(const ClusterParts& parts) : parts_(parts) {}

  // Of one job, or with JobId{0} of the cluster.
  asio::awaitable<Answer> events(const Call& call) const {
    const Result<Range> range = range_of(call);
    if (!range) co_return error_answer(range.error());
    if (call.accept.find("text/event-stream") != std::string::npos)
      co_return server_sent(call.job, range->after);
    for (;;) {
      const std::uint64_t seen = parts_.notices.version(call.job);
      const Result<EventsRead> read = co_await read_events(call.job, range->after);
      if (!read) co_return error_answer(read.error());
      if (!read->events.empty() || read->end || monotonic_now() >= range->until) {
        json::array items;
        for (const Event& event : read->events) items.push_back(json_of(event));
        const std::uint64_t next = read->events.empty() ? range->after : read->events.back().seq;
        co_return json_answer(page_of("events", json::serialize(items), next, read->end));
      }
      co_await wait_for_news(parts_.notices, call.job, seen, range->until);
    }
  }

  asio::awaitable<Answer> steps(const Call& call) const {
    const Result<Range> range = range_of(call);
    if (!range) co_return error_answer(range.error());
    for (;;) {
      const std::uint64_t seen = parts_.notices.version(call.job);
      const Result<JobPhase> phase = co_await phase_of(call.job);
      if (!phase) co_return error_answer(phase.error());
      using Page = Result<coordinator::StepsPage>;
      Page page = co_await ask<Page>(
          parts_.stores.host(), [stores = &parts_.stores, id = call.job, after = range->after] {
            return stores->read_steps(id, after);
          });
      if (nothing_yet(page, range->after)) page = coordinator::StepsPage{};
      if (!page) co_return error_answer(page.error());
      const bool end = page->records.empty() && co_await streams_over(call.job, *phase);
      if (!page->records.empty() || end || monotonic_now() >= range->until) {
        std::string items = "[";
        for (const std::string& record : page->records)
          items.append(items.size() > 1 ? "," : "").append(record);
        co_return json_answer(page_of("steps", items.append("]"), page->next, end));
      }
      co_await wait_for_news(parts_.notices, call.job, seen, next_look(*phase, range->until));
    }
  }

  asio::awaitable<Answer> logs(const Call& call) const {
    const Result<Range> range = range_of(call);
    if (!range) co_return error_answer(range.error());
    std::optional<std::uint32_t> rank;
    if (call.query.contains("rank")) {
      const Result<std::uint64_t> number = call.number("rank", 0);
      if (!number) co_return error_answer(number.error());
      rank = static_cast<std::uint32_t>(*number);
    }
    std::uint64_t after = range->after;
    for (;;) {
      const std::uint64_t seen = parts_.notices.version(call.job);
      const Result<JobPhase> phase = co_await phase_of(call.job);
      if (!phase) co_return error_answer(phase.error());
      using Page = Result<coordinator::LogPage>;
      Page page = co_await ask<Page>(parts_.stores.host(),
                                     [stores = &parts_.stores, id = call.job, after, rank] {
                                       return stores->read_log(id, after, rank);
                                     });
      if (nothing_yet(page, after)) page = coordinator::LogPage{};
      if (!page) co_return error_answer(page.error());
      const bool moved = page->next > after;
      after = page->next;
      const bool end = !moved && co_await streams_over(call.job, *phase);
      if (!page->chunks.empty() || end || monotonic_now() >= range->until) {
        co_return json_answer(
            page_of("chunks", json::serialize(json_of(page->chunks)), after, end));
      }
      // What was skipped belongs to other ranks: there may be more at once.
      if (!moved)
        co_await wait_for_news(parts_.notices, call.job, seen, next_look(*phase, range->until));
    }
  }

 private:
  static Instant next_look(const JobPhase& phase, Instant until) {
    return phase.terminal ? std::min(until, monotonic_now() + kEndedPoll) : until;
  }

  asio::awaitable<Result<JobPhase>> phase_of(JobId job) const {
    return ask<Result<JobPhase>>(
        parts_.cluster.host(), [cluster = &parts_.cluster, job]() -> Result<JobPhase> {
          const coordinator::JobRecord* record = cluster->settled_state().find_job(job);
          if (record == nullptr) return no_job(job);
          return JobPhase{coordinator::is_terminal(record->state), record->ended_unix_ms};
        });
  }

  // Whether nothing will follow in the job's streams. Asked after they were read to their end.
  asio::awaitable<bool> streams_over(JobId job, JobPhase phase) const {
    if (!phase.terminal) co_return false;
    if (phase.long_over()) co_return true;
    const Result<bool> ended = co_await ask<Result<bool>>(
        parts_.stores.host(),
        [stores = &parts_.stores, job] { return Result<bool>(stores->streams_ended(job)); });
    co_return ended.ok() && *ended;
  }

  asio::awaitable<Result<EventsRead>> read_events(JobId job, std::uint64_t after) const {
    return ask<Result<EventsRead>>(
        parts_.cluster.host(), [cluster = &parts_.cluster, job, after]() -> Result<EventsRead> {
          EventsRead out;
          const coordinator::ClusterState& state = cluster->settled_state();
          const coordinator::JobRecord* record = state.find_job(job);
          if (job && record == nullptr) return no_job(job);
          Result<std::vector<Event>> events =
              cluster->ledger().events({.after = after, .job = job});
          if (!events) return events.error();
          const Result<std::uint64_t> first = cluster->ledger().first_event();
          if (!first) return first.error();
          if (*first > after + 1) {
            Event gap;
            gap.seq = *first - 1;
            gap.kind = coordinator::EventKind::gap;
            gap.message = "events up to " + std::to_string(gap.seq) + " are not kept any more";
            out.events.push_back(std::move(gap));
          }
          out.events.insert(out.events.end(), std::make_move_iterator(events->begin()),
                            std::make_move_iterator(events->end()));
          out.end =
              out.events.empty() && record != nullptr && coordinator::is_terminal(record->state);
          return out;
        });
  }

  Answer server_sent(JobId job, std::uint64_t after) const {
    Answer answer;
    answer.content_type = "text/event-stream";
    answer.stream = [self = shared_from_this(), job, after](BodyStream& body) {
      return self->stream_events(job, after, body);
    };
    return answer;
  }

  asio::awaitable<void> stream_events(JobId job, std::uint64_t after, BodyStream& body) const {
    for (;;) {
      const std::uint64_t seen = parts_.notices.version(job);
      const Result<EventsRead> read = co_await read_events(job, after);
      if (!read || read->end) co_return;
      std::string part;
      for (const Event& event : read->events) {
        after = event.seq;
        part += "id: " + std::to_string(event.seq) + "\ndata: " + json::serialize(json_of(event)) +
                "\n\n";
      }
      const bool nothing = part.empty();
      if (nothing) part = ": \n\n";  // a comment: shows both ends that the other is there
      if (!co_await body.write(std::move(part))) co_return;
      if (nothing) co_await wait_for_news(parts_.notices, job, seen, monotonic_now() + kKeepAlive);
    }
  }

  ClusterParts parts_;
};

}  // namespace

std::vector<Route> stream_routes(const ClusterParts& parts) {
  const auto routes = std::make_shared<const StreamRoutes>(parts);
  return {
      {"GET", "/api/v1/events", Role::viewer,
       [routes](const Call& call) { return routes->events(call); }},
      {"GET", "/api/v1/jobs/ID/events", Role::viewer,
       [routes](const Call& call) { return routes->events(call); }},
      {"GET", "/api/v1/jobs/ID/steps", Role::viewer,
       [routes](const Call& call) { return routes->steps(call); }},
      {"GET", "/api/v1/jobs/ID/logs", Role::viewer,
       [routes](const Call& call) { return routes->logs(call); }},
  };
}

}  // namespace tutti::api
