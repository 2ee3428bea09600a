#include "worker/launcher/process_plan.h"

#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "protocol/spec/parse.h"

namespace tutti::worker {

namespace {

// Names of this list are the cluster's own, and are set anew or kept away from what we start.
constexpr std::string_view kWithheld[] = {
    "TUTTI_TOKEN",   "TUTTI_URL",     "TUTTI_STATE",      "TUTTI_JOIN",
    "TUTTI_JOB",     kProcessMark,    "TUTTI_GENERATION", "TUTTI_RANK",
    "TUTTI_RANK_FD", kWorkerMark,     "TUTTI_THREADS",    "RANK",
    "WORLD_SIZE",    "LOCAL_RANK",    "LOCAL_WORLD_SIZE", "MASTER_ADDR",
    "MASTER_PORT",   "NOTIFY_SOCKET", "TUTTI_DATA_HOST"};

// A list of variables in which a later value replaces an earlier one.
class Environment {
 public:
  explicit Environment(std::vector<std::string> entries) : entries_(std::move(entries)) {}

  void set(std::string_view name, std::string_view value) {
    const std::string start = std::string(name) + "=";
    std::erase_if(entries_, [&](const std::string& entry) { return entry.starts_with(start); });
    entries_.push_back(start + std::string(value));
  }

  bool has(std::string_view name) const {
    const std::string start = std::string(name) + "=";
    return std::any_of(entries_.begin(), entries_.end(),
                       [&](const std::string& entry) { return entry.starts_with(start); });
  }

  std::vector<std::string> take() { return std::move(entries_); }

 private:
  std::vector<std::string> entries_;
};

void set_identity(Environment& environment, const PlanSettings& settings,
                  const wire::StartRank& start) {
  environment.set("TUTTI_JOB", to_string(start.job));
  environment.set("TUTTI_GENERATION", to_string(start.generation));
  environment.set(kProcessMark, to_string(start.process));
  environment.set("TUTTI_RANK", std::to_string(start.rank));
  environment.set("TUTTI_THREADS", std::to_string(start.threads));
  environment.set(kWorkerMark, settings.mark);
}

}  // namespace

std::vector<std::string> inherited_environment() {
  std::vector<std::string> out;
  for (char** entry = ::environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    const std::string_view name = text.substr(0, text.find('='));
    if (std::find(std::begin(kWithheld), std::end(kWithheld), name) == std::end(kWithheld)) {
      out.emplace_back(text);
    }
  }
  return out;
}

LaunchPlan plan_rank(const PlanSettings& settings, const wire::StartRank& start,
                     const std::string& data_host) {
  Environment environment(settings.environment);
  set_identity(environment, settings, start);
  if (!data_host.empty()) environment.set("TUTTI_DATA_HOST", data_host);
  return {.command = {settings.rank_binary.string(), "run", "--job", to_string(start.job),
                      "--generation", to_string(start.generation), "--process",
                      to_string(start.process)},
          .environment = environment.take(),
          .folder = {},
          .linked = true};
}

Result<LaunchPlan> plan_program(const PlanSettings& settings, const wire::StartRank& start,
                                const ProgramGroup& group) {
  const auto spec = spec::parse_job_spec(start.spec);
  if (!spec) return spec.error();
  if (group.group.addresses.empty()) {
    return Error{ErrorCode::invalid_argument, "the group has no addresses"};
  }
  const std::string& master = group.group.addresses.front();
  const auto colon = master.rfind(':');
  if (colon == std::string::npos) {
    return Error{ErrorCode::invalid_argument, "not HOST:PORT: " + master};
  }
  std::error_code failed;
  if (!start.folder.empty()) std::filesystem::create_directories(start.folder, failed);
  if (failed) return errno_error("cannot make the folder " + start.folder, failed.value());

  Environment environment(settings.environment);
  if (!environment.has("OMP_NUM_THREADS")) {
    environment.set("OMP_NUM_THREADS", std::to_string(std::max(start.threads, 1U)));
  }
  for (const auto& [name, value] : spec->env) environment.set(name, value);
  set_identity(environment, settings, start);
  environment.set("MASTER_ADDR", master.substr(0, colon));
  environment.set("MASTER_PORT", master.substr(colon + 1));
  environment.set("RANK", std::to_string(start.rank));
  environment.set("WORLD_SIZE", std::to_string(start.size));
  environment.set("LOCAL_RANK", std::to_string(group.local_rank));
  environment.set("LOCAL_WORLD_SIZE", std::to_string(group.local_size));
  environment.set("TORCHELASTIC_RESTART_COUNT", std::to_string(start.generation.value - 1));
  environment.set("TORCHELASTIC_RUN_ID", "tutti-" + to_string(start.job));
  return LaunchPlan{.command = spec->command,
                    .environment = environment.take(),
                    .folder = spec->folder.empty() ? start.folder : spec->folder,
                    .linked = false};
}

}  // namespace tutti::worker
