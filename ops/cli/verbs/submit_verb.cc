// tutti submit: a spec read and checked here, its paths made absolute, and sent with a key.
#include <fmt/core.h>

#include <boost/json/object.hpp>

#include <cstdio>
#include <memory>
#include <optional>

#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/client/interrupt.h"
#include "ops/cli/client/watch.h"
#include "ops/cli/device_fit.h"
#include "ops/cli/rank_tools.h"
#include "ops/cli/spec_file.h"
#include "ops/cli/text/table.h"
#include "ops/cli/verbs.h"
#include "protocol/base/secret.h"
#include "protocol/spec/parse.h"

namespace tutti::cli {

namespace {

struct SubmitOptions {
  std::string file;
  std::vector<std::string> overrides;
  std::string key;
  bool follow = false;
  bool wait = false;
  bool queue = false;
};

int finish(Session& session, const Result<boost::json::value>& job) {
  if (!job) return fail(job.error());
  print(session.json() ? json_line(*job) : describe_end(*job) + '\n');
  return exit_code_of_job(*job);
}

// A gang that no set of the nodes known now can hold would wait in silence: its sender is told.
// Nodes that are away count, and so do those that come later, with --queue.
std::optional<std::string> lacking_slots(const boost::json::value& nodes,
                                         const spec::JobSpec& spec) {
  std::int64_t slots = 0;
  for (const boost::json::value& node : list_of(nodes, "nodes")) slots += whole_of(node, "slots");
  if (slots == 0 || spec.resources.ranks_min <= slots) return std::nullopt;
  return fmt::format(
      "the job needs {} ranks and the cluster has {} slots; lower resources.ranks, add workers, "
      "or wait for them with --queue",
      spec.resources.ranks_min, slots);
}

// Asks for GPUs that are large enough, and says so beside the id.
std::optional<int> fit_and_tell(spec::JobSpec& spec, const boost::json::value& nodes,
                                const SubmitOptions& options) {
  const DeviceFit fit = fit_devices(spec, devices_of(nodes), ask_device_memory);
  if (fit.is_refused() && !options.queue) {
    fmt::print(stderr, "{}", fit_text(fit));
    return fail(kRefused, misfit_line(fit) + "; or wait for larger ones with --queue");
  }
  if (!fit.problem.empty()) fail(kDone, "memory of its GPUs is not estimated: " + fit.problem);
  if (fit.filled) {
    fail(kDone, fmt::format("asks for GPUs of {} by the estimate (resources.device_memory; "
                            "`tutti plan` shows its parts)",
                            print_bytes_short(spec.resources.device_memory_bytes)));
  }
  return std::nullopt;
}

int submit(const SubmitOptions& options, Session& session) {
  Result<spec::JobSpec> spec = load_spec_file(options.file, options.overrides);
  if (!spec) return fail(spec.error());
  Connection connection;
  Api& api = connection.api();
  if (!options.queue || spec::takes_gpus(*spec)) {
    const Result<boost::json::value> nodes = api.get("/api/v1/nodes");
    if (!nodes) return fail(nodes.error());
    if (!options.queue) {
      if (const auto lacking = lacking_slots(*nodes, *spec)) return fail(kRefused, *lacking);
    }
    if (const auto refused = fit_and_tell(*spec, *nodes, options)) return *refused;
  }
  // The key makes the request repeatable: the same key gives the same job.
  const std::string key = options.key.empty() ? random_hex(16) : options.key;
  const boost::json::object body{
      {"spec", spec::to_yaml(*spec)}, {"file", options.file}, {"key", key}};
  const Result<boost::json::value> answer = api.post("/api/v1/jobs", body, Api::Repeat::allowed);
  if (!answer) return fail(answer.error());
  const auto id = static_cast<std::uint64_t>(whole_of(*answer, "id"));
  print(session.json() ? json_line(*answer) : fmt::format("{}\n", id));
  // Beside the id, which alone is the output; in JSON it is a field.
  const std::string notice = text_of(*answer, "notice");
  if (!notice.empty() && !session.json()) {
    fail(kDone, fmt::format("{}; `tutti explain {}` says why", notice, id));
  }
  if (!options.follow && !options.wait) return kDone;
  const OnInterrupt interrupt([id] { say_that_it_goes_on(id); });
  if (options.follow) return finish(session, follow_job(api, session, id));
  api.set_patience(kWatchPatience);
  return finish(session, wait_for_end(api, id, std::nullopt));
}

}  // namespace

Action declare_submit(Arguments& arguments) {
  auto options = std::make_shared<SubmitOptions>();
  arguments.word("FILE", options->file, "job spec, YAML; - reads standard input");
  arguments.repeated("--set", options->overrides, "set one key, as in --set train.steps=10");
  arguments.option("--key", options->key,
                   "name of this request: the same key again gives the same job (default: random)");
  arguments.flag("-f,--follow", options->follow, "show progress until the job ends");
  arguments.flag("--wait", options->wait, "wait until the job ends");
  arguments.flag("--queue", options->queue,
                 "submit although the cluster has too few slots, or too small GPUs, now");
  arguments.epilogue(
      "Prints the job's id. Paths in data.text, data.tokens, data.tokenizer, model.path, "
      "train.resume\n"
      "and folder are relative to the folder of FILE. A job for GPUs that does not say\n"
      "resources.device_memory asks for what it is estimated to take. With --follow or --wait it "
      "ends with the "
      "job's\n"
      "exit code: 0 done, 1 failed, 3 infrastructure, 4 Tutti's own error.\n"
      "A key is remembered for 7 days; of jobs that are forgotten (the 10,000 that ended last "
      "are\n"
      "kept), for the newest 100,000 of them.");
  return [options](Session& session) { return submit(*options, session); };
}

}  // namespace tutti::cli
