// tutti jobs | job | explain | plan | wait | cancel.
#include <fmt/core.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <memory>
#include <optional>

#include "coordinator/api/http_client.h"
#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/client/interrupt.h"
#include "ops/cli/client/job_list.h"
#include "ops/cli/client/job_names.h"
#include "ops/cli/client/watch.h"
#include "ops/cli/device_fit.h"
#include "ops/cli/rank_tools.h"
#include "ops/cli/spec_file.h"
#include "ops/cli/text/job_text.h"
#include "ops/cli/verbs.h"
#include "protocol/base/clock.h"
#include "protocol/spec/parse.h"
#include "protocol/spec/quantity.h"

namespace tutti::cli {

namespace {

Paint paint_of(const Session& session) {
  return session.out_is_terminal ? Paint::coloured : Paint::plain;
}

std::string target_of(std::uint64_t id) { return fmt::format("/api/v1/jobs/{}", id); }

struct ListOptions {
  std::string state;
  std::string owner;
  std::optional<std::uint64_t> last;
};

int show_jobs(const ListOptions& options, const Session& session) {
  std::string query;
  const auto ask_for = [&](std::string_view key, const std::string& value) {
    if (value.empty()) return;
    query += fmt::format("{}{}={}", query.empty() ? "" : "&", key, api::encode_query(value));
  };
  ask_for("state", options.state);
  ask_for("owner", options.owner);
  if (options.last) ask_for("last", std::to_string(*options.last));
  Connection connection;
  const Result<boost::json::value> answer = list_jobs(connection.api(), query);
  if (!answer) return fail(answer.error());
  print(session.json() ? json_line(*answer)
                       : jobs_table(list_of(*answer, "jobs"), wall_now(), paint_of(session)));
  return kDone;
}

int show_job(const std::string& name, const Session& session) {
  Connection connection;
  const Result<std::uint64_t> id = find_job(connection.api(), name);
  if (!id) return fail(id.error());
  const Result<boost::json::value> job = connection.api().get(target_of(*id));
  if (!job) return fail(job.error());
  print(session.json() ? json_line(*job) : job_page(*job, wall_now(), paint_of(session)));
  return kDone;
}

void show_explanation(const boost::json::value& explanation, const Session& session) {
  if (session.json()) return print(json_line(explanation));
  for (const boost::json::value& line : list_of(explanation, "lines")) {
    print(std::string(line.as_string()) + '\n');
  }
}

int explain_job(const std::string& name, const Session& session) {
  Connection connection;
  const Result<std::uint64_t> id = find_job(connection.api(), name);
  if (!id) return fail(id.error());
  const Result<boost::json::value> answer = connection.api().get(target_of(*id) + "/explain");
  if (!answer) return fail(answer.error());
  show_explanation(*answer, session);
  return kDone;
}

struct PlanOptions {
  std::string file;
  std::vector<std::string> overrides;
};

// How the products of a model fit into tiles; an object with `lines`. Null: the job has no model.
boost::json::value tiles_of(const spec::JobSpec& spec, const DeviceFit& fit) {
  if (fit.memory) return fit.memory->tiles;
  const bool computes = spec.kind == spec::JobKind::train || spec.kind == spec::JobKind::serve;
  if (!computes || !fit.problem.empty()) return nullptr;
  Result<DeviceMemory> answer = ask_device_memory(spec);
  if (answer) return std::move(answer->tiles);
  const std::string line = "the padding of its products is not known: " + answer.error().message;
  return boost::json::object{{"lines", boost::json::array{line}}};
}

int plan(const PlanOptions& options, const Session& session) {
  Result<spec::JobSpec> spec = load_spec_file(options.file, options.overrides);
  if (!spec) return fail(spec.error());
  Connection connection;
  const Result<boost::json::value> nodes = connection.api().get("/api/v1/nodes");
  if (!nodes) return fail(nodes.error());
  const DeviceFit fit = fit_devices(*spec, devices_of(*nodes), ask_device_memory);
  const boost::json::object body{{"spec", spec::to_yaml(*spec)}, {"file", options.file}};
  Result<boost::json::value> answer =
      connection.api().post("/api/v1/plan", body, Api::Repeat::allowed);
  if (!answer) return fail(answer.error());
  const boost::json::value tiles = tiles_of(*spec, fit);
  if (session.json() && answer->is_object()) {
    answer->as_object()["device_memory"] = fit_json(fit);
    answer->as_object()["tiles"] = tiles;
  }
  show_explanation(*answer, session);
  if (!session.json()) {
    print(fit_text(fit));
    show_explanation(tiles, session);
  }
  if (fit.is_refused()) return fail(kRefused, misfit_line(fit));
  return text_of(*answer, "reason") == "never_fits" ? kRefused : kDone;
}

struct WaitOptions {
  std::string job;
  std::string timeout;
  bool follow = false;
};

int wait(const WaitOptions& options, Session& session) {
  std::optional<std::chrono::milliseconds> timeout;
  if (options.follow && !options.timeout.empty()) {
    return fail(kUsage, "--timeout and --follow exclude each other");
  }
  if (!options.timeout.empty()) {
    const auto ms = spec::parse_duration_ms(options.timeout);
    if (!ms) return fail(kUsage, "--timeout must be a duration such as 60s or 5m");
    timeout = std::chrono::milliseconds(*ms);
  }
  Connection connection;
  connection.api().set_patience(kWatchPatience);
  const Result<std::uint64_t> id = find_job(connection.api(), options.job);
  if (!id) return fail(id.error());
  const Result<boost::json::value> job = options.follow
                                             ? follow_job(connection.api(), session, *id)
                                             : wait_for_end(connection.api(), *id, timeout);
  if (!job) return fail(job.error());
  print(session.json() ? json_line(*job) : describe_end(*job) + '\n');
  return exit_code_of_job(*job);
}

struct CancelOptions {
  std::string job;
  std::string reason = "on request";
  bool save = false;
};

int cancel(const CancelOptions& options, const Session& session) {
  Connection connection;
  const Result<std::uint64_t> id = find_job(connection.api(), options.job);
  if (!id) return fail(id.error());
  const boost::json::object body{{"reason", options.reason}, {"save", options.save}};
  const Result<boost::json::value> job =
      connection.api().post(target_of(*id) + "/cancel", body, Api::Repeat::allowed);
  if (!job) return fail(job.error());
  print(session.json() ? json_line(*job)
                       : fmt::format("job {}: {}\n", *id, text_of(*job, "state")));
  return kDone;
}

}  // namespace

Action declare_jobs(Arguments& arguments) {
  auto options = std::make_shared<ListOptions>();
  arguments.option("--state", options->state, "only those in these states, as in queued,running");
  arguments.option("--owner", options->owner, "only this user's");
  arguments.option("--last", options->last, "only the newest so many, at most 1000");
  return [options](Session& session) { return show_jobs(*options, session); };
}

Action declare_job(Arguments& arguments) {
  auto name = std::make_shared<std::string>();
  arguments.word("JOB", *name, "job id or name");
  return [name](Session& session) { return show_job(*name, session); };
}

Action declare_explain(Arguments& arguments) {
  auto name = std::make_shared<std::string>();
  arguments.word("JOB", *name, "job id or name");
  return [name](Session& session) { return explain_job(*name, session); };
}

Action declare_plan(Arguments& arguments) {
  auto options = std::make_shared<PlanOptions>();
  arguments.word("FILE", options->file, "job spec, YAML; - reads standard input");
  arguments.repeated("--set", options->overrides, "set one key, as in --set resources.ranks=8");
  arguments.epilogue(
      "Submits nothing: says whether the job would start at once, and if not what it would wait "
      "for,\n"
      "who holds it and the earliest start. Of a job for GPUs also what it takes of their memory,\n"
      "by component, and whether that fits; and what part of a model's products is padding for\n"
      "sizes that are no whole tiles. Ends with 5 if the cluster could never hold it.");
  return [options](Session& session) { return plan(*options, session); };
}

Action declare_wait(Arguments& arguments) {
  auto options = std::make_shared<WaitOptions>();
  arguments.word("JOB", options->job, "job id or name");
  arguments.flag("-f,--follow", options->follow, "show progress meanwhile");
  arguments.option("--timeout", options->timeout, "give up after, as in 60s or 5m (exit code 3)");
  arguments.epilogue(
      "Ends with the job's exit code: 0 done, 1 failed, 3 infrastructure, 4 Tutti's own error.");
  return [options](Session& session) { return wait(*options, session); };
}

Action declare_cancel(Arguments& arguments) {
  auto options = std::make_shared<CancelOptions>();
  arguments.word("JOB", options->job, "job id or name");
  arguments.option("--reason", options->reason, "kept with the job");
  arguments.flag("--save", options->save, "finish the step and leave a checkpoint first");
  return [options](Session& session) { return cancel(*options, session); };
}

}  // namespace tutti::cli
