#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <optional>

#include "coordinator/api/ask.h"
#include "coordinator/api/cluster_routes.h"
#include "coordinator/api/event_query.h"
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
// The same while a step waits for one before it.
constexpr Duration kHeldPoll = std::chrono::milliseconds(500);
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
  std::uint64_t next = 0;
  bool more = false;  // there may be others behind `next` already
  bool end = false;   // nothing will follow
};

// One page of a stream, as JSON.
struct StreamPage {
  std::string items;  // an array
  std::size_t count = 0;
  std::uint64_t next = 0;
  bool more = false;
  bool end = false;
  Instant look_again;  // even without news
};

struct Range {
  std::uint64_t after = 0;
  Instant until;
};

Result<Range> range_of(const Call& call) {
  const Result<std::uint64_t> after = cursor_of(call);
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
    const auto query = parse_event_query(call);
    if (!query) co_return error_answer(query.error());
    Reader reader = [self = shared_from_this(), query = *query](std::uint64_t after) {
      return self->event_page(query, after);
    };
    co_return co_await serve(call, "events", std::move(reader));
  }

  asio::awaitable<Answer> steps(const Call& call) const {
    Reader reader = [self = shared_from_this(), job = call.job](std::uint64_t after) {
      return self->step_page(job, after);
    };
    co_return co_await serve(call, "steps", std::move(reader));
  }

  asio::awaitable<Answer> logs(const Call& call) const {
    std::optional<std::uint32_t> rank;
    if (call.query.contains("rank")) {
      const Result<std::uint64_t> number = call.number("rank", 0);
      if (!number) co_return error_answer(number.error());
      rank = static_cast<std::uint32_t>(*number);
    }
    Reader reader = [self = shared_from_this(), job = call.job, rank](std::uint64_t after) {
      return self->log_page(job, rank, after);
    };
    co_return co_await serve(call, "chunks", std::move(reader));
  }

 private:
  // Reads the page behind a cursor.
  using Reader = std::function<asio::awaitable<Result<StreamPage>>(std::uint64_t after)>;

  // A page at once or after a wait, or, for who accepts them, server-sent events. An error (there
  // is no such job) comes as one in both cases.
  asio::awaitable<Answer> serve(const Call& call, std::string name, Reader reader) const {
    const Result<Range> range = range_of(call);
    if (!range) co_return error_answer(range.error());
    const bool streams = call.accept.find("text/event-stream") != std::string::npos;
    std::uint64_t after = range->after;
    for (;;) {
      const std::uint64_t seen = parts_.notices.version(call.job);
      const Result<StreamPage> page = co_await reader(after);
      if (!page) co_return error_answer(page.error());
      if (streams) co_return server_sent(call.job, after, std::move(name), std::move(reader));
      after = page->next;
      if (page->count > 0 || page->end || monotonic_now() >= range->until)
        co_return json_answer(page_of(name, page->items, page->next, page->end));
      if (page->more) continue;
      co_await wait_for_news(parts_.notices, call.job, seen,
                             std::min(range->until, page->look_again));
    }
  }

  asio::awaitable<Result<StreamPage>> event_page(coordinator::Ledger::EventQuery query,
                                                 std::uint64_t after) const {
    query.after = after;
    const Result<EventsRead> read = co_await read_events(query);
    if (!read) co_return read.error();
    json::array items;
    for (const Event& event : read->events) items.push_back(json_of(event));
    co_return StreamPage{
        json::serialize(items), items.size(), read->next, read->more, read->end, far_away()};
  }

  asio::awaitable<Result<StreamPage>> step_page(JobId job, std::uint64_t after) const {
    const Result<JobPhase> phase = co_await phase_of(job);
    if (!phase) co_return phase.error();
    using Page = Result<coordinator::StepsRead>;
    Page read = co_await ask<Page>(parts_.stores.host(), [stores = &parts_.stores, job, after] {
      return stores->read_steps(job, after);
    });
    if (nothing_yet(read, after)) read = coordinator::StepsRead{};
    if (!read) co_return read.error();
    const bool nothing = read->records.empty() && !read->held;
    const bool end = nothing && co_await streams_over(job, *phase);
    std::string items = "[";
    for (const std::string& record : read->records)
      items.append(items.size() > 1 ? "," : "").append(record);
    Instant again = next_look(*phase);
    if (read->held) again = std::min(again, monotonic_now() + kHeldPoll);
    co_return StreamPage{items.append("]"), read->records.size(), read->next, false, end, again};
  }

  asio::awaitable<Result<StreamPage>> log_page(JobId job, std::optional<std::uint32_t> rank,
                                               std::uint64_t after) const {
    const Result<JobPhase> phase = co_await phase_of(job);
    if (!phase) co_return phase.error();
    using Page = Result<coordinator::LogPage>;
    Page read = co_await ask<Page>(
        parts_.stores.host(),
        [stores = &parts_.stores, job, after, rank] { return stores->read_log(job, after, rank); });
    if (nothing_yet(read, after)) read = coordinator::LogPage{};
    if (!read) co_return read.error();
    // What was skipped belongs to other ranks: there may be more at once.
    const bool moved = read->next > after;
    const bool end = !moved && co_await streams_over(job, *phase);
    const json::array items = json_of(read->chunks);
    co_return StreamPage{json::serialize(items), items.size(), read->next, moved, end,
                         next_look(*phase)};
  }

  static Instant far_away() { return monotonic_now() + std::chrono::hours(1); }
  static Instant next_look(const JobPhase& phase) {
    return phase.terminal ? monotonic_now() + kEndedPoll : far_away();
  }

  asio::awaitable<Result<JobPhase>> phase_of(JobId job) const {
    return ask<Result<
        JobPhase>>(parts_.cluster.host(), [cluster = &parts_.cluster, job]() -> Result<JobPhase> {
      // Also of a task of an array that is not a job of its own now.
      const auto found = cluster->job(job);
      if (!found) return no_job(job);
      return JobPhase{coordinator::is_terminal(found->summary.state), found->summary.ended_unix_ms};
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

  // The oldest event that is kept; 0: none was dropped of the job, whose first one is kept.
  static Result<std::uint64_t> first_kept(coordinator::ClusterHost& cluster, JobId job) {
    if (job) {
      const auto page = cluster.ledger().query_events({.job = job, .limit = 1});
      if (!page) return page.error();
      const coordinator::JobRecord* record = cluster.settled_state().find_job(job);
      const bool task = record == nullptr || record->array;
      const auto begins = [&](const Event& event) {
        return event.kind == coordinator::EventKind::submitted ||
               (task && event.kind == coordinator::EventKind::placed &&
                event.generation == Generation{1});
      };
      if (!page->events.empty() && begins(page->events[0])) return std::uint64_t{0};
    }
    return cluster.ledger().first_event();
  }

  asio::awaitable<Result<EventsRead>> read_events(coordinator::Ledger::EventQuery query) const {
    auto read = [cluster = &parts_.cluster, query = std::move(query)]() -> Result<EventsRead> {
      const auto found = query.job ? cluster->job(query.job) : std::nullopt;
      if (query.job && !found) return no_job(query.job);
      Result<coordinator::Ledger::EventPage> page = cluster->ledger().query_events(query);
      if (!page) return page.error();
      const Result<std::uint64_t> first = first_kept(*cluster, query.job);
      if (!first) return first.error();
      EventsRead out;
      out.next = page->next;
      out.more = page->more;
      if (*first > query.after + 1) {
        Event gap;
        gap.seq = *first - 1;
        gap.kind = coordinator::EventKind::gap;
        gap.message = "events up to " + std::to_string(gap.seq) + " are not kept any more";
        out.next = std::max(out.next, gap.seq);
        out.events.push_back(std::move(gap));
      }
      out.events.insert(out.events.end(), std::make_move_iterator(page->events.begin()),
                        std::make_move_iterator(page->events.end()));
      out.end = out.events.empty() && !out.more && found &&
                coordinator::is_terminal(found->summary.state);
      return out;
    };
    co_return co_await ask<Result<EventsRead>>(parts_.cluster.host(), read);
  }

  Answer server_sent(JobId topic, std::uint64_t after, std::string name, Reader reader) const {
    Answer answer;
    answer.content_type = "text/event-stream";
    answer.stream = [self = shared_from_this(), topic, after, name = std::move(name),
                     reader = std::move(reader)](BodyStream& body) {
      return self->send_pages(topic, after, name, reader, body);
    };
    return answer;
  }

  // Events one by one; of others a page at a time, so that an id is never one in the middle of what
  // was read together.
  static std::string as_events(std::string_view name, const StreamPage& page) {
    if (page.count == 0) return "";
    if (name != "events") {
      return "id: " + std::to_string(page.next) + "\ndata: {\"" + std::string(name) +
             "\":" + page.items + "}\n\n";
    }
    std::string out;
    const json::value events = json::parse(page.items);
    for (const json::value& event : events.as_array()) {
      out +=
          "id: " + json::serialize(event.at("seq")) + "\ndata: " + json::serialize(event) + "\n\n";
    }
    return out;
  }

  asio::awaitable<void> send_pages(JobId topic, std::uint64_t after, const std::string& name,
                                   const Reader& reader, BodyStream& body) const {
    for (;;) {
      const std::uint64_t seen = parts_.notices.version(topic);
      const Result<StreamPage> page = co_await reader(after);
      if (!page) co_return;
      if (page->end) {
        static_cast<void>(co_await body.write("event: end\ndata: {}\n\n"));
        co_return;
      }
      after = page->next;
      std::string part = as_events(name, *page);
      if (part.empty() && page->more) continue;
      const bool nothing = part.empty();
      // Shows both ends that the other is there. The id is kept by a reader though it shows
      // nothing: one that comes back later has missed no more than what it really did.
      if (nothing) part = ": \nid: " + std::to_string(after) + "\n\n";
      if (!co_await body.write(std::move(part))) co_return;
      if (!nothing) continue;
      co_await wait_for_news(parts_.notices, topic, seen,
                             std::min(monotonic_now() + kKeepAlive, page->look_again));
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
