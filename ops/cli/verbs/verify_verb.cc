// tutti verify: replays steps of a training job on one rank and compares the weight hashes.
#include <fmt/core.h>

#include <boost/json/object.hpp>

#include <memory>

#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/client/interrupt.h"
#include "ops/cli/client/watch.h"
#include "ops/cli/replay.h"
#include "ops/cli/verbs.h"
#include "protocol/base/secret.h"
#include "protocol/spec/parse.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

struct VerifyOptions {
  std::uint64_t id = 0;
  std::string steps;
};

struct Replay {
  std::uint64_t id = 0;
  ReplayBase base;
};

Result<json::array> read_steps(Api& api, std::uint64_t id, Follow follow) {
  json::array records;
  const StreamOptions options{
      fmt::format("/api/v1/jobs/{}/steps", id), "", "steps", follow, "0", nullptr};
  const Result<> read =
      read_stream(api, options, [&](const json::value& record) { records.push_back(record); });
  if (!read) return read.error();
  return records;
}

Result<Replay> submit_replay(Api& api, const VerifyOptions& options, const StepRange& range) {
  const Result<json::value> job = api.get(fmt::format("/api/v1/jobs/{}", options.id));
  if (!job) return job.error();
  const Result<spec::JobSpec> spec = spec::parse_job_spec(text_of(*job, "spec"));
  if (!spec) return Error(spec.error()).with_context("the job's spec");
  if (spec->kind != spec::JobKind::train) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("job {} is of kind {}; only training is replayed", options.id,
                             spec::to_string(spec->kind))};
  }
  Replay replay;
  replay.base = choose_base(*job, range);
  const spec::JobSpec derived = replay_spec(*spec, replay.base, range, options.id);
  const json::object body{
      {"spec", spec::to_yaml(derived)}, {"file", derived.name}, {"key", random_hex(16)}};
  const Result<json::value> answer = api.post("/api/v1/jobs", body, Api::Repeat::allowed);
  if (!answer) return answer.error();
  replay.id = static_cast<std::uint64_t>(whole_of(*answer, "id"));
  return replay;
}

// Somebody who stops verifying has no use for the replay.
void cancel_replay(std::uint64_t id) {
  Connection connection;
  connection.api().set_patience(std::chrono::milliseconds(0));
  const json::object body{{"reason", "verify was interrupted"}};
  const Result<json::value> answer =
      connection.api().post(fmt::format("/api/v1/jobs/{}/cancel", id), body, Api::Repeat::never);
  if (!answer) fail(answer.error());
}

json::value report(const VerifyOptions& options, const Replay& replay,
                   const std::vector<ComparedStep>& steps) {
  json::array rows;
  for (const ComparedStep& step : steps) {
    rows.push_back(json::object{{"step", step.step},
                                {"generation", step.generation},
                                {"ranks", step.ranks},
                                {"weights", step.weights},
                                {"replayed", step.replayed},
                                {"equal", step.equal()}});
  }
  const auto difference = first_difference(steps);
  return json::object{{"job", options.id},
                      {"replay", replay.id},
                      {"from_step", replay.base.step},
                      {"equal", !difference},
                      {"first_difference", difference ? json::value(*difference) : json::value()},
                      {"steps", std::move(rows)}};
}

std::string from_text(const ReplayBase& base) {
  return base.folder.empty() ? "its beginning" : fmt::format("checkpoint step-{}", base.step);
}

int verify(const VerifyOptions& options, Session& session) {
  const Result<StepRange> range = parse_step_range(options.steps);
  if (!range) return fail(range.error());
  Connection connection;
  Api& api = connection.api();
  const Result<json::array> before = read_steps(api, options.id, Follow::no);
  if (!before) return fail(before.error());
  // Asked before anything is computed: whether the job has these steps at all.
  if (const auto known = compare_steps(*before, {}, *range); !known) return fail(known.error());

  const Result<Replay> replay = submit_replay(api, options, *range);
  if (!replay) return fail(replay.error());
  const OnInterrupt interrupt([id = replay->id] { cancel_replay(id); });
  if (!session.json()) {
    print(fmt::format("verify: job {} replays steps {} to {} of job {} on one rank, from {}\n",
                      replay->id, replay->base.step + 1, range->last, options.id,
                      from_text(replay->base)));
  }
  api.set_patience(kWatchPatience);
  const Result<json::value> ended = session.out_is_terminal && !session.json()
                                        ? follow_job(api, session, replay->id)
                                        : wait_for_end(api, replay->id, std::nullopt);
  if (!ended) return fail(ended.error());
  if (text_of(*ended, "state") != "done") {
    const int code = exit_code_of_job(*ended);
    return fail(static_cast<ExitCode>(code),
                "the replay did not end well: " + describe_end(*ended));
  }
  // Its worker may still hand over the last records: to their end, which comes in seconds.
  const Result<json::array> after = read_steps(api, replay->id, Follow::yes);
  if (!after) return fail(after.error());
  const Result<std::vector<ComparedStep>> steps = compare_steps(*before, *after, *range);
  if (!steps) return fail(steps.error());

  const auto difference = first_difference(*steps);
  if (session.json()) {
    print(json_line(report(options, *replay, *steps)));
  } else {
    const Paint paint = session.out_is_terminal ? Paint::coloured : Paint::plain;
    print(comparison_table(*steps, paint));
    print(difference ? fmt::format("verify: step {} is the first of {} that differs\n", *difference,
                                   steps->size())
                     : fmt::format("verify: all {} steps have equal weights\n", steps->size()));
  }
  return difference ? kOwnError : kDone;
}

}  // namespace

Action declare_verify(Arguments& arguments) {
  auto options = std::make_shared<VerifyOptions>();
  arguments.number("JOB", options->id, "job id");
  arguments.option("--steps", options->steps, "FIRST:LAST, both included");
  arguments.required();
  arguments.epilogue(
      "Starts from the newest checkpoint before FIRST that is still there, else from the "
      "beginning,\n"
      "as a job of its own. Exit code 0: all hashes are equal; 4: one differs (the first is "
      "named).");
  return [options](Session& session) { return verify(*options, session); };
}

}  // namespace tutti::cli
