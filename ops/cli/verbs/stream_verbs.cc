// tutti steps | logs | events: records of a job as they are made.
#include <fmt/core.h>

#include <memory>
#include <optional>

#include "coordinator/api/http_client.h"
#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/client/job_names.h"
#include "ops/cli/client/watch.h"
#include "ops/cli/text/job_text.h"
#include "ops/cli/text/log_lines.h"
#include "ops/cli/verbs.h"
#include "protocol/base/clock.h"
#include "protocol/spec/quantity.h"

namespace tutti::cli {

namespace {

struct StreamArguments {
  std::string job;  // events: of the whole cluster without one
  std::optional<std::uint64_t> rank;
  std::string since = std::string(1, '0');  // a cursor; of events also a time ago
  std::string kinds;                        // events
  std::string node;                         // events
  bool follow = false;
  bool cursor = false;  // say where to go on

  Follow following() const { return follow ? Follow::yes : Follow::no; }
  // What an ended job's workers still have to hand over is waited for (seconds at most), so that
  // the records behind `tutti wait` are whole.
  Follow following(const boost::json::value& of_job) const {
    return is_terminal(of_job) ? Follow::yes : following();
  }
};

std::uint64_t id_of(const boost::json::value& job) {
  return static_cast<std::uint64_t>(whole_of(job, "id"));
}

std::string target_of(std::uint64_t id, std::string_view stream) {
  return fmt::format("/api/v1/jobs/{}/{}", id, stream);
}

bool is_cursor(const std::string& text) {
  return !text.empty() && text.find_first_not_of("0123456789") == std::string::npos;
}

// Where the next invocation goes on, where it does not mix with the records.
void say_cursor(const StreamArguments& arguments, const std::string& reached) {
  if (arguments.cursor) fail(kDone, fmt::format("go on with --since {}", reached));
}

Result<boost::json::value> get_job(Api& api, const std::string& name) {
  const Result<std::uint64_t> id = find_job(api, name);
  if (!id) return id.error();
  return api.get(fmt::format("/api/v1/jobs/{}", *id));
}

int steps(const StreamArguments& arguments, const Session& session) {
  Connection connection;
  Api& api = connection.api();
  const Result<boost::json::value> job = get_job(api, arguments.job);
  if (!job) return fail(job.error());
  if (!is_cursor(arguments.since)) return fail(kUsage, "--since must be a step");
  bool titled = session.json();
  std::string reached = arguments.since;
  const StreamOptions options{target_of(id_of(*job), "steps"),
                              "",
                              "steps",
                              arguments.following(*job),
                              arguments.since,
                              &reached};
  const Result<> read = read_stream(api, options, [&](const boost::json::value& record) {
    if (!titled) print(steps_title());
    titled = true;
    print(session.json() ? json_line(record) : step_row(record));
  });
  say_cursor(arguments, reached);
  return read ? kDone : fail(read.error());
}

int logs(const StreamArguments& arguments, const Session& session) {
  Connection connection;
  Api& api = connection.api();
  const Result<boost::json::value> job = get_job(api, arguments.job);
  if (!job) return fail(job.error());
  if (!is_cursor(arguments.since)) return fail(kUsage, "--since must be a cursor of --cursor");
  LogLines lines(arguments.rank ? LogPrefix::none : log_prefix_of(*job));
  const std::string query = arguments.rank ? fmt::format("rank={}", *arguments.rank) : "";
  std::string reached = arguments.since;
  const StreamOptions options{target_of(id_of(*job), "logs"), query,           "chunks",
                              arguments.following(*job),      arguments.since, &reached};
  const Result<> read = read_stream(api, options, [&](const boost::json::value& chunk) {
    print(session.json() ? json_line(chunk) : lines.add(chunk));
  });
  print(lines.rest());
  // An array writes nothing itself.
  if (has(*job, "tasks") && !session.json()) {
    const std::uint64_t id = id_of(*job);
    fail(kDone, fmt::format("job {} is an array: `tutti logs {}` is the output of its task 0, and "
                            "so on; `tutti job {}` lists those that tell something",
                            id, id + 1, id));
  }
  say_cursor(arguments, reached);
  return read ? kDone : fail(read.error());
}

// Which events, as the API takes it. Errors: invalid_argument.
Result<std::string> event_query(const StreamArguments& arguments) {
  std::string query;
  const auto add = [&](std::string_view key, const std::string& value) {
    if (!value.empty())
      query += fmt::format("{}{}={}", query.empty() ? "" : "&", key, api::encode_query(value));
  };
  add("kind", arguments.kinds);
  add("node", arguments.node);
  if (is_cursor(arguments.since)) return query;
  const auto ago = spec::parse_duration_ms(arguments.since);
  if (!ago) {
    return Error{ErrorCode::invalid_argument,
                 "--since must be a cursor (the number of an event) or a time ago, as in 10m"};
  }
  add("since_unix_ms", std::to_string(wall_now().unix_ms - static_cast<std::int64_t>(*ago)));
  return query;
}

int events(const StreamArguments& arguments, const Session& session) {
  Connection connection;
  const Paint paint = session.out_is_terminal ? Paint::coloured : Paint::plain;
  std::string target = "/api/v1/events";
  if (!arguments.job.empty()) {
    const Result<std::uint64_t> id = find_job(connection.api(), arguments.job);
    if (!id) return fail(id.error());
    target = target_of(*id, "events");
  }
  const Result<std::string> query = event_query(arguments);
  if (!query) return fail(query.error());
  std::string reached = is_cursor(arguments.since) ? arguments.since : "0";
  const StreamOptions options{target, *query, "events", arguments.following(), reached, &reached};
  const Result<> read =
      read_stream(connection.api(), options, [&](const boost::json::value& event) {
        print(session.json() ? json_line(event) : event_row(event, paint));
      });
  say_cursor(arguments, reached);
  return read ? kDone : fail(read.error());
}

void declare_since(Arguments& arguments, StreamArguments& given) {
  arguments.option("--since", given.since,
                   "go on behind this cursor; of events also a time ago, as in 10m");
  arguments.flag("--cursor", given.cursor, "say at the end where to go on, on standard error");
}

}  // namespace

Action declare_steps(Arguments& arguments) {
  auto given = std::make_shared<StreamArguments>();
  arguments.word("JOB", given->job, "job id or name");
  declare_since(arguments, *given);
  arguments.flag("-f,--follow", given->follow, "go on until the job ends");
  arguments.epilogue(
      "With -o json one record a line: step, loss, grad_norm, rate, tokens, seconds, generation,\n"
      "ranks, and weights, the hash of all parameters after the step; in fp16 also loss_scale and\n"
      "skipped: gradients were not finite (null, where a loss or norm was not), no weight "
      "changed.");
  return [given](Session& session) { return steps(*given, session); };
}

Action declare_logs(Arguments& arguments) {
  auto given = std::make_shared<StreamArguments>();
  arguments.word("JOB", given->job, "job id or name");
  declare_since(arguments, *given);
  arguments.flag("-f,--follow", given->follow, "go on until the job ends");
  arguments.option("--rank", given->rank, "only this rank's");
  return [given](Session& session) { return logs(*given, session); };
}

Action declare_events(Arguments& arguments) {
  auto given = std::make_shared<StreamArguments>();
  arguments.optional_word("JOB", given->job,
                          "job id or name; without it those of the whole cluster");
  arguments.option("--job", given->job, "the same");
  arguments.option("--kind", given->kinds, "only these, as in failed,rank_lost");
  arguments.option("--node", given->node, "only those about this node");
  declare_since(arguments, *given);
  arguments.flag("-f,--follow", given->follow, "go on as they happen");
  return [given](Session& session) { return events(*given, session); };
}

}  // namespace tutti::cli
