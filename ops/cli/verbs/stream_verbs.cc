// tutti steps | logs | events: records of a job as they are made.
#include <fmt/core.h>

#include <memory>
#include <optional>

#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/client/watch.h"
#include "ops/cli/text/job_text.h"
#include "ops/cli/text/log_lines.h"
#include "ops/cli/verbs.h"

namespace tutti::cli {

namespace {

struct StreamArguments {
  std::uint64_t id = 0;
  std::optional<std::uint64_t> some_id;  // events: of the whole cluster without one
  std::optional<std::uint64_t> rank;
  bool follow = false;

  Follow following() const { return follow ? Follow::yes : Follow::no; }
  // What an ended job's workers still have to hand over is waited for (seconds at most), so that
  // the records behind `tutti wait` are whole.
  Follow following(const boost::json::value& job) const {
    return is_terminal(job) ? Follow::yes : following();
  }
};

std::string target_of(std::uint64_t id, std::string_view stream) {
  return fmt::format("/api/v1/jobs/{}/{}", id, stream);
}

int steps(const StreamArguments& arguments, const Session& session) {
  Connection connection;
  Api& api = connection.api();
  const Result<boost::json::value> job = api.get(fmt::format("/api/v1/jobs/{}", arguments.id));
  if (!job) return fail(job.error());
  bool titled = session.json();
  const StreamOptions options{target_of(arguments.id, "steps"), "", "steps",
                              arguments.following(*job)};
  const Result<> read = read_stream(api, options, [&](const boost::json::value& record) {
    if (!titled) print(steps_title());
    titled = true;
    print(session.json() ? json_line(record) : step_row(record));
  });
  return read ? kDone : fail(read.error());
}

int logs(const StreamArguments& arguments, const Session& session) {
  Connection connection;
  Api& api = connection.api();
  const Result<boost::json::value> job = api.get(fmt::format("/api/v1/jobs/{}", arguments.id));
  if (!job) return fail(job.error());
  LogLines lines(arguments.rank ? LogPrefix::none : log_prefix_of(*job));
  const std::string query = arguments.rank ? fmt::format("rank={}", *arguments.rank) : "";
  const StreamOptions options{target_of(arguments.id, "logs"), query, "chunks",
                              arguments.following(*job)};
  const Result<> read = read_stream(api, options, [&](const boost::json::value& chunk) {
    print(session.json() ? json_line(chunk) : lines.add(chunk));
  });
  print(lines.rest());
  return read ? kDone : fail(read.error());
}

int events(const StreamArguments& arguments, const Session& session) {
  Connection connection;
  const Paint paint = session.out_is_terminal ? Paint::coloured : Paint::plain;
  const StreamOptions options{
      arguments.some_id ? target_of(*arguments.some_id, "events") : "/api/v1/events", "", "events",
      arguments.following()};
  const Result<> read =
      read_stream(connection.api(), options, [&](const boost::json::value& event) {
        print(session.json() ? json_line(event) : event_row(event, paint));
      });
  return read ? kDone : fail(read.error());
}

}  // namespace

Action declare_steps(Arguments& arguments) {
  auto given = std::make_shared<StreamArguments>();
  arguments.number("JOB", given->id, "job id");
  arguments.flag("-f,--follow", given->follow, "go on until the job ends");
  arguments.epilogue(
      "With -o json one record a line: step, loss, grad_norm, rate, tokens, seconds, generation,\n"
      "ranks, and weights, the hash of all parameters after the step.");
  return [given](Session& session) { return steps(*given, session); };
}

Action declare_logs(Arguments& arguments) {
  auto given = std::make_shared<StreamArguments>();
  arguments.number("JOB", given->id, "job id");
  arguments.flag("-f,--follow", given->follow, "go on until the job ends");
  arguments.option("--rank", given->rank, "only this rank's");
  return [given](Session& session) { return logs(*given, session); };
}

Action declare_events(Arguments& arguments) {
  auto given = std::make_shared<StreamArguments>();
  arguments.optional_number("JOB", given->some_id, "job id; without it those of the whole cluster");
  arguments.flag("-f,--follow", given->follow, "go on as they happen");
  return [given](Session& session) { return events(*given, session); };
}

}  // namespace tutti::cli
