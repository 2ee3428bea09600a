#include "worker/launcher/process_plan.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <string_view>

#include "protocol/spec/parse.h"
#include "worker/launcher/core_share.h"
#include "worker/launcher/data_interface.h"

namespace tutti::worker {

namespace {

// Names of this list are the cluster's own, and are set anew or kept away from what we start.
constexpr std::string_view kWithheld[] = {
    "TUTTI_TOKEN",      "TUTTI_URL",     "TUTTI_STATE",      "TUTTI_JOIN",
    "TUTTI_JOB",        kProcessMark,    "TUTTI_GENERATION", "TUTTI_RANK",
    "TUTTI_RANK_FD",    kWorkerMark,     "TUTTI_THREADS",    "RANK",
    "WORLD_SIZE",       "LOCAL_RANK",    "LOCAL_WORLD_SIZE", "MASTER_ADDR",
    "MASTER_PORT",      "NOTIFY_SOCKET", "TUTTI_DATA_HOST",  kHandoverName,
    "GROUP_RANK",       "ROLE_RANK",     "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE",
    "TUTTI_ARRAY_INDEX"};

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
  if (start.array_index >= 0) {
    environment.set("TUTTI_ARRAY_INDEX", std::to_string(start.array_index));
  }
}

// A task's own number, where the spec says ${index}.
std::string with_index(std::string text, std::int64_t index) {
  constexpr std::string_view kIndex = "${index}";
  if (index < 0) return text;
  const std::string number = std::to_string(index);
  for (auto at = text.find(kIndex); at != std::string::npos; at = text.find(kIndex, at)) {
    text.replace(at, kIndex.size(), number);
    at += number.size();
  }
  return text;
}

// torchrun counts its agents, one a node; here a node is a host, in the order of its first rank.
struct Place {
  std::size_t node = 0;
  std::size_t nodes = 0;
};

Place place_of(const std::vector<std::string>& addresses, std::uint32_t rank) {
  std::vector<std::string_view> hosts;
  Place out;
  for (std::size_t i = 0; i < addresses.size(); ++i) {
    const std::string_view host = std::string_view(addresses[i]).substr(0, addresses[i].rfind(':'));
    auto at = std::find(hosts.begin(), hosts.end(), host);
    if (at == hosts.end()) at = hosts.insert(hosts.end(), host);
    if (i == rank) out.node = static_cast<std::size_t>(at - hosts.begin());
  }
  out.nodes = hosts.size();
  return out;
}

// NCCL's sockets take the way that ranks take, unless somebody has said which.
void set_nccl_interface(Environment& environment, const std::string& host) {
  constexpr const char* kNcclInterface = "NCCL_SOCKET_IFNAME";
  const std::string interface = interface_of(host);
  if (environment.has(kNcclInterface) || interface.empty()) return;
  environment.set(kNcclInterface, "=" + interface);  // by its whole name
}

// As `torchrun` sets it, so that its programs run unchanged.
void set_torch(Environment& environment, const wire::StartRank& start, const ProgramGroup& group) {
  const std::string& master = group.group.addresses.front();
  const auto colon = master.rfind(':');
  const Place place = place_of(group.group.addresses, start.rank);
  const auto set = [&](std::string_view name, std::uint64_t value) {
    environment.set(name, std::to_string(value));
  };
  environment.set("MASTER_ADDR", master.substr(0, colon));
  environment.set("MASTER_PORT", master.substr(colon + 1));
  set("RANK", start.rank);
  set("WORLD_SIZE", start.size);
  set("LOCAL_RANK", group.local_rank);
  set("LOCAL_WORLD_SIZE", group.local_size);
  set("GROUP_RANK", place.node);
  set("GROUP_WORLD_SIZE", place.nodes);
  set("ROLE_RANK", start.rank);
  set("ROLE_WORLD_SIZE", start.size);
  set("TORCHELASTIC_RESTART_COUNT", start.generation.value - 1);
  environment.set("TORCHELASTIC_RUN_ID", "tutti-" + to_string(start.job));
}

}  // namespace

Result<const spec::JobSpec*> SpecCache::parse(const std::string& yaml) {
  const auto known = specs_.find(yaml);
  if (known != specs_.end()) return &known->second;
  auto spec = spec::parse_job_spec(yaml);
  if (!spec) return spec.error();
  if (specs_.size() >= kSpecsMax) specs_.clear();
  return &specs_.emplace(yaml, *std::move(spec)).first->second;
}

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
                     const RankPlace& place) {
  Environment environment(settings.environment);
  set_identity(environment, settings, start);
  if (!place.data_host.empty()) environment.set("TUTTI_DATA_HOST", place.data_host);
  // Where all ranks are on this machine nobody else is to reach where they meet.
  const bool alone = place.data_host.empty();
  if (!alone || !start.device.empty())
    set_nccl_interface(environment, alone ? "127.0.0.1" : place.data_host);
  if (!place.cores.empty()) environment.set(kCoresName, place.cores);
  if (!start.device.empty()) {
    environment.set("CUDA_VISIBLE_DEVICES", start.device);
    environment.set("TUTTI_DEVICE", "gpu:" + start.device);
  }
  return {.command = {settings.rank_binary.string(), "run", "--job", to_string(start.job),
                      "--generation", to_string(start.generation), "--process",
                      to_string(start.process)},
          .environment = environment.take(),
          .folder = {},
          .linked = true,
          .program = settings.rank_binary.string(),
          .cpus = place.cores.empty() ? place.cpus : std::vector<int>()};
}

Result<LaunchPlan> plan_program(const PlanSettings& settings, SpecCache& specs,
                                const wire::StartRank& start, const ProgramGroup& group) {
  const auto parsed = specs.parse(start.spec);
  if (!parsed) return parsed.error();
  const spec::JobSpec& spec = **parsed;
  if (group.group.addresses.empty() ||
      group.group.addresses.front().find(':') == std::string::npos) {
    return Error{ErrorCode::invalid_argument, "the group has no address of its first rank"};
  }
  Environment environment(settings.environment);
  if (!environment.has("OMP_NUM_THREADS")) {
    environment.set("OMP_NUM_THREADS", std::to_string(std::max(start.threads, 1U)));
  }
  for (const auto& [name, value] : spec.env) {
    environment.set(name, with_index(value, start.array_index));
  }
  set_identity(environment, settings, start);
  set_torch(environment, start, group);
  // Of all local ranks, since a program takes the one that LOCAL_RANK counts; no others are leased.
  if (!group.local_devices.empty()) {
    environment.set("CUDA_VISIBLE_DEVICES", fmt::format("{}", fmt::join(group.local_devices, ",")));
  }
  LaunchPlan plan;
  for (const std::string& word : spec.command) {
    plan.command.push_back(with_index(word, start.array_index));
  }
  plan.environment = environment.take();
  plan.folder = spec.folder.empty() ? start.folder : spec.folder;
  return plan;
}

}  // namespace tutti::worker
