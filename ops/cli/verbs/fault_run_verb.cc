// tutti fault run: a schedule of faults from a seed, on a real job, and a report of what held.
#include <fmt/core.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <algorithm>
#include <filesystem>
#include <memory>
#include <optional>

#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/client/interrupt.h"
#include "ops/cli/client/job_names.h"
#include "ops/cli/client/watch.h"
#include "ops/cli/faults/fault_run.h"
#include "ops/cli/faults/report.h"
#include "ops/cli/spec_file.h"
#include "ops/cli/verbs.h"
#include "protocol/base/secret.h"
#include "protocol/spec/parse.h"

namespace tutti::cli {

namespace fs = std::filesystem;
namespace json = boost::json;

namespace {

struct FaultRunOptions {
  std::string file;
  std::optional<std::uint64_t> seed;
  std::vector<std::string> set;
  bool plan = false;
};

std::uint64_t fresh_seed() { return std::stoull(random_hex(4), nullptr, 16); }

Result<spec::JobSpec> spec_of_job(Api& api, FaultSetup& setup) {
  const Result<std::uint64_t> id = find_job(api, setup.file.job);
  if (!id) return id.error();
  setup.job = *id;
  const Result<json::value> job = api.get(fmt::format("/api/v1/jobs/{}", *id));
  if (!job) return job.error();
  if (is_terminal(*job)) {
    return Error{ErrorCode::invalid_argument,
                 fmt::format("job {} has ended; name its spec in place of it", *id)};
  }
  Result<spec::JobSpec> spec = spec::parse_job_spec(text_of(*job, "spec"));
  if (!spec) return std::move(spec).error().with_context("the job's spec");
  return spec;
}

Result<FaultSetting> setting_of(Api& api, const FaultSetup& setup, bool ask_nodes) {
  FaultSetting setting;
  setting.ranks = setup.spec->resources.ranks_max;
  if (setup.spec->kind == spec::JobKind::train) {
    setting.steps = setup.spec->train.stop != 0 ? setup.spec->train.stop : setup.spec->train.steps;
  }
  if (!ask_nodes) return setting;
  const Result<json::value> nodes = api.get("/api/v1/nodes");
  if (!nodes) return nodes.error();
  for (const json::value& node : list_of(*nodes, "nodes")) {
    if (text_of(node, "state") == "ready") setting.nodes.push_back(text_of(node, "name"));
  }
  std::sort(setting.nodes.begin(), setting.nodes.end());
  if (setting.nodes.empty()) return Error{ErrorCode::unavailable, "no node is ready"};
  return setting;
}

// A plan of rank faults on a spec needs no cluster.
bool needs_nodes(const FaultRunOptions& options, const FaultFile& file) {
  if (!options.plan) return true;
  for (const FaultEntry& entry : file.entries) {
    if (row_of(entry.kind).target == FaultTarget::node && entry.node.empty()) return true;
  }
  return false;
}

Result<FaultSetup> set_up(const FaultRunOptions& options, Api& api) {
  FaultSetup setup;
  Result<FaultFile> file = load_fault_file(options.file);
  if (!file) return file.error();
  setup.file = *std::move(file);
  setup.seed = options.seed ? *options.seed : setup.file.seed ? *setup.file.seed : fresh_seed();
  if (!setup.file.job.empty()) {
    if (!options.set.empty()) {
      return Error{ErrorCode::invalid_argument, "--set belongs to a spec: the job has its keys"};
    }
    Result<spec::JobSpec> spec = spec_of_job(api, setup);
    if (!spec) return spec.error();
    setup.spec = *std::move(spec);
  } else {
    std::vector<std::string> set = setup.file.set;
    set.insert(set.end(), options.set.begin(), options.set.end());
    const fs::path path = fs::path(options.file).parent_path() / setup.file.spec;
    Result<spec::JobSpec> spec = load_spec_file(path.string(), set);
    if (!spec) return spec.error();
    setup.spec = *std::move(spec);
  }
  if (setup.spec->array.count > 0) {
    return Error{ErrorCode::unsupported, "an array is many jobs; give faults to one of its tasks"};
  }
  const Result<FaultSetting> setting = setting_of(api, setup, needs_nodes(options, setup.file));
  if (!setting) return setting.error();
  Result<std::vector<PlannedFault>> schedule = make_schedule(setup.file, setup.seed, *setting);
  if (!schedule) return schedule.error();
  setup.schedule = *std::move(schedule);
  return setup;
}

int show_plan(const FaultSetup& setup, const Session& session, Paint paint) {
  if (!session.json()) {
    print(fmt::format("{}: seed {}\n{}", setup.file.name, setup.seed,
                      schedule_table(setup.schedule, paint)));
    return kDone;
  }
  json::array faults;
  for (const PlannedFault& fault : setup.schedule) {
    faults.push_back(json::object{{"number", fault.number},
                                  {"fault", row_of(fault.kind).name},
                                  {"due", print_moment(fault)},
                                  {"whom", print_victim(fault)},
                                  {"lasts_ms", fault.lasts_ms},
                                  {"delay_ms", fault.delay_ms}});
  }
  print(json_line(json::object{
      {"name", setup.file.name}, {"seed", setup.seed}, {"faults", std::move(faults)}}));
  return kDone;
}

void take_back(FaultUndo& undo, Api& api) {
  for (const std::string& sentence : undo.undo(api)) fail(kDone, sentence);
}

std::string replay_command(const FaultRunOptions& options, std::uint64_t seed) {
  std::string text = fmt::format("tutti fault run {} --seed {}", options.file, seed);
  for (const std::string& one : options.set) text += fmt::format(" --set {}", one);
  return text;
}

int fault_run(const FaultRunOptions& options, Session& session) {
  Connection connection;
  const Result<FaultSetup> setup = set_up(options, connection.api());
  if (!setup) return fail(setup.error());
  const Paint paint = session.out_is_terminal ? Paint::coloured : Paint::plain;
  if (options.plan) return show_plan(*setup, session, paint);
  if (!session.json()) show_plan(*setup, session, paint);

  FaultUndo undo;
  const OnInterrupt interrupt([&undo] {
    Connection another;
    take_back(undo, another.api());
  });
  FaultRun run(connection.api(), session, undo, *setup);
  const Result<> done = run.run();
  connection.api().set_patience(kWatchPatience);
  if (undo.is_undone())
    return kInfrastructure;  // interrupted: what remains to be said is said there
  take_back(undo, connection.api());
  if (!done) return fail(done.error());

  const std::vector<Judged> judged = judge(run.history());
  const FaultReport report{run.history(), judged, replay_command(options, setup->seed)};
  print(session.json() ? json_line(report_json(report)) : report_text(report, paint));
  return report_code(report);
}

}  // namespace

Action declare_fault_run(Arguments& arguments) {
  auto options = std::make_shared<FaultRunOptions>();
  arguments.word("FILE", options->file, "faults, YAML");
  arguments.option("--seed", options->seed, "in place of the file's");
  arguments.repeated("--set", options->set, "set one key of the job's spec");
  arguments.flag("--plan", options->plan, "show the schedule, and do nothing");
  arguments.epilogue(
      "Submits the job (or finds it), injects each fault at its moment, and says at the end what\n"
      "held, by the names of ARCHITECTURE's invariants. The seed fixes which faults come when, to\n"
      "whom; what the machines make of it is theirs. Ctrl-C takes everything back: stopped ranks\n"
      "go on, nodes are healed, the job is cancelled. Exit code 0: all held; 4: a promise did "
      "not;\n"
      "1: a fault was not reached, or the job ended otherwise than expected.\n\n" +
      fault_file_keys() + fault_check_lines());
  return [options](Session& session) { return fault_run(*options, session); };
}

}  // namespace tutti::cli
