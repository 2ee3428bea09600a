#include "worker/agent/worker_service.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <boost/json/object.hpp>
#include <boost/json/serialize.hpp>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

#include "protocol/actor/runtime.h"
#include "protocol/base/log.h"
#include "protocol/base/secret.h"
#include "worker/agent/handover.h"
#include "worker/agent/rank_devices.h"
#include "worker/agent/worker_host.h"
#include "worker/inventory/gpus.h"
#include "worker/inventory/inventory.h"
#include "worker/inventory/measured_links.h"
#include "worker/launcher/next_binary.h"

namespace tutti::worker {

namespace {

namespace fs = std::filesystem;

// Ranks of an earlier worker are dying already, by their parent-death signal; a large one takes its
// time.
constexpr Duration kLeftoversWithin = std::chrono::seconds(10);
// Making a GPU's context takes about a second, more on a machine with many.
constexpr Duration kDevicesWithin = std::chrono::seconds(60);

Error incomplete() { return {ErrorCode::invalid_argument, "a worker needs `state` and `join`"}; }

// The folder, made and locked. The lock lasts as long as the descriptor, which no child inherits.
Result<FileDescriptor> lock_state(const fs::path& folder) {
  std::error_code failed;
  fs::create_directories(folder, failed);
  if (failed) return errno_error("cannot make the state folder " + folder.string(), failed.value());
  const fs::path path = folder / "lock";
  FileDescriptor file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  if (!file) return errno_error("cannot write into the state folder " + folder.string(), errno);
  if (::flock(file.get(), LOCK_EX | LOCK_NB) != 0) {
    return Error{ErrorCode::already_exists,
                 "another worker runs on the state folder " + folder.string()};
  }
  return file;
}

// Where this program is now, also once a package has replaced the file that we run.
std::string own_binary() {
  constexpr std::string_view kDeleted = " (deleted)";
  std::error_code failed;
  std::string path = fs::read_symlink("/proc/self/exe", failed).string();
  if (path.ends_with(kDeleted)) path.erase(path.size() - kDeleted.size());
  return path;
}

// What its ranks compute on, as they take it from the same variable: cpu | gpu.
std::string device_kind() {
  const char* const device = std::getenv("TUTTI_DEVICE");
  const std::string_view name = device == nullptr ? "" : device;
  return name.empty() ? "cpu" : std::string(name.substr(0, name.find(':')));
}

fs::path rank_binary_of(const spec::WorkerConfig& config) {
  if (!config.rank_binary.empty()) return fs::absolute(config.rank_binary);
  const fs::path folder = fs::path(own_binary()).parent_path();
  // A worker that is told to use GPUs starts the binary that has them, where there is one.
  std::error_code ignored;
  const fs::path with_gpus = folder / "tutti-rank-cuda";
  const bool has = device_kind() == "gpu" && fs::exists(with_gpus, ignored);
  return has ? with_gpus : folder / "tutti-rank";
}

wire::Hello introduce(const spec::WorkerConfig& config, const RankCores& given) {
  const Inventory inventory = take_inventory();
  wire::Hello hello;
  hello.worker = config.name.empty() ? inventory.host : config.name;
  hello.incarnation = random_hex(8);
  hello.boot_id = inventory.boot_id;
  hello.host = inventory.host;
  hello.version = TUTTI_VERSION;
  const Offer offer =
      offer_of({.slots = config.slots, .threads = config.threads}, inventory.cores, given.cores);
  hello.slots = offer.slots;
  hello.cores = offer.cores;
  hello.memory_bytes = inventory.memory_bytes;
  hello.cpu = inventory.cpu;
  hello.profiles = inventory.profiles;
  hello.runs_programs = config.runs_programs;
  hello.faults = config.faults;
  hello.labels.push_back("device=" + device_kind());
  for (const auto& [key, value] : config.labels) hello.labels.push_back(key + "=" + value);
  return hello;
}

// A slot is a GPU, leased by its UUID. Where none can be used, the worker joins without slots, as
// one that has no GPU, and says why: what is placed would end as its user's failure.
void introduce_gpus(const spec::WorkerConfig& config, Result<RankDevices> found,
                    wire::Hello& hello) {
  if (!found) {
    hello.device_stack = "no GPU can be used: " + found.error().message;
    TUTTI_LOG_WARNING("worker", "{}", hello.device_stack);
    hello.slots = 0;
    hello.profiles.clear();
    std::erase(hello.labels, "device=gpu");
    return;
  }
  TUTTI_LOG_INFO("worker", "{} GPUs, {}", found->devices.size(), found->stack);
  const auto count = static_cast<std::uint32_t>(found->devices.size());
  if (config.slots == 0) hello.slots = count;
  if (hello.slots > count) {
    TUTTI_LOG_WARNING("worker", "{} slots are asked for, and there are {} GPUs", hello.slots,
                      count);
    hello.slots = count;
  }
  if (config.threads != 0) hello.cores = config.threads * hello.slots;
  found->devices.resize(hello.slots);
  hello.profiles = std::move(found->profiles);
  hello.devices = std::move(found->devices);
  hello.device_stack = std::move(found->stack);
  hello.exchange = std::move(found->exchange);
}

// Where ranks compute on them, they are as the binary before had them: whoever asks has a context
// made on each, which takes longer than a lease at times, and may find no room beside the ranks.
Result<RankDevices> find_devices(const PlanSettings& plan, const Handover* before) {
  const bool in_use = before != nullptr && before->devices && !before->processes.empty();
  if (in_use) return *before->devices;
  return ask_rank_devices(plan.rank_binary, plan.environment, kDevicesWithin);
}

int refuse(const Error& error) {
  write_log(LogLevel::error, "worker", error.message);
  return 2;
}

// Its own command line, for the next binary.
std::vector<std::string> own_command() {
  std::vector<std::string> out;
  const auto text = read_file("/proc/self/cmdline", std::uint64_t{1} << 20);
  if (text) {
    std::istringstream words(*text);
    for (std::string word; std::getline(words, word, '\0');) out.push_back(word);
  }
  if (out.empty()) out.emplace_back();
  out.front() = own_binary();
  return out;
}

// For `tutti worker restart`: whom to tell, how often it was restarted in place, and how often, and
// why at last, it was not.
struct WhoRuns {
  std::uint32_t restarts = 0;
  std::uint32_t refused = 0;
  std::string refusal;
};

void say(const fs::path& state, const WhoRuns& who) {
  const boost::json::object line{{"pid", ::getpid()},
                                 {"version", TUTTI_VERSION},
                                 {"restarts", who.restarts},
                                 {"refused", who.refused},
                                 {"refusal", who.refusal}};
  const auto said =
      write_file_atomically(state / "worker.json", boost::json::serialize(line) + "\n", 0600);
  if (!said) TUTTI_LOG_WARNING("worker", "{}", said.error().message);
}

// `before`: what is gone on with, or null.
HostSettings settings_of(const spec::WorkerConfig& config, const fs::path& state,
                         const Handover* before) {
  HostSettings out;
  out.plan = {.rank_binary = rank_binary_of(config),
              .mark = state.string(),
              .environment = inherited_environment()};
  out.cgroups = own_cgroups();
  // A user's own wish holds for all ranks, as it is.
  if (std::getenv(kCoresName) == nullptr) out.cores = rank_cores();
  out.worker.hello = introduce(config, out.cores);
  if (device_kind() == "gpu") {
    Result<RankDevices> found = find_devices(out.plan, before);
    if (found) out.devices = *found;
    introduce_gpus(config, std::move(found), out.worker.hello);
  }
  out.worker.notice = std::chrono::milliseconds(config.notice_ms);
  out.worker.seed = std::hash<std::string>{}(out.worker.hello.incarnation);
  out.spools = state / "spools";
  out.join = fs::absolute(config.join);
  return out;
}

// What an earlier worker with this mark left running, if it did not hand it over. The caller holds
// the folder's lock.
std::size_t end_leftovers(const CgroupRoots& cgroups, const std::string& mark) {
  const Limiter limiter(cgroups, mark);
  const std::size_t ended = limiter.end_leftovers(kLeftoversWithin);
  return ended + end_marked({std::string(kWorkerMark) + "=" + mark}, kLeftoversWithin);
}

}  // namespace

void clean_up_after_worker(const spec::WorkerConfig& config) {
  std::error_code failed;
  const fs::path state = fs::canonical(config.state, failed);
  if (failed) return;  // no worker has begun there
  const auto lock = lock_state(state);
  if (lock) end_leftovers(own_cgroups(), state.string());
}

Result<std::string> check_worker(const spec::WorkerConfig& config) {
  if (config.state.empty() || config.join.empty()) return incomplete();
  std::error_code failed;
  const fs::path state = fs::canonical(config.state, failed);
  if (failed) return errno_error("cannot find " + config.state, failed.value());
  return check_line({.state = state, .handover = kHandoverVersion});
}

int run_worker(const spec::WorkerConfig& config) {
  ::signal(SIGPIPE, SIG_IGN);
  if (config.state.empty() || config.join.empty()) return refuse(incomplete());
  auto handover = take_handover();
  if (!handover) {
    // Its ranks are ended below, like those of any worker that is gone.
    write_log(LogLevel::error, "worker", handover.error().message);
  }
  const bool inherits = handover && handover->has_value();
  auto lock = inherits ? Result<FileDescriptor>(FileDescriptor((*handover)->lock))
                       : lock_state(config.state);
  if (!lock) return refuse(lock.error());
  std::error_code failed;
  const fs::path state = fs::canonical(config.state, failed);
  if (failed) return refuse(errno_error("cannot find " + config.state, failed.value()));

  HostSettings settings = settings_of(config, state, inherits ? &**handover : nullptr);
  settings.worker.hello.limits = name_of(Limiter(settings.cgroups, settings.plan.mark).hold());
  if (inherits) settings.worker.hello.incarnation = (*handover)->incarnation;
  settings.learned = state / "join.learned.json";
  settings.measured_links = state / kMeasuredLinksFile;
  const auto keys = transport::load_or_make_keys(state / "worker.key");
  if (!keys) return refuse(keys.error());
  settings.keys = *keys;
  if (!inherits) {
    const std::size_t ended = end_leftovers(settings.cgroups, settings.plan.mark);
    if (ended > 0) TUTTI_LOG_INFO("worker", "ended {} processes of an earlier worker", ended);
  }
  if (!inherits) raise_oom_score();
  if (!adopt_orphans()) TUTTI_LOG_WARNING("worker", "orphans of programs are found by mark only");
  WhoRuns who{.restarts = inherits ? (*handover)->restarts + 1 : 0, .refused = 0, .refusal = {}};

  actor::Runtime runtime(0);  // all on this thread, the only one that may fork
  WorkerHost host(runtime, std::move(settings));
  if (inherits) host.restore(**std::move(handover));
  runtime.on_signals({SIGTERM, SIGINT}, [&host](int) { host.stop(); });
  const WorkerHost::Successor successor{
      .exec =
          [&](Handover next) {
            if (Result<> asked =
                    ask_next_binary(own_command(), {.state = state, .handover = kHandoverVersion});
                !asked) {
              return std::move(asked).error();
            }
            next.lock = lock->get();
            next.restarts = who.restarts;
            return exec_with(own_command(), next);
          },
      .refused =
          [&](const Error& reason) {
            ++who.refused;
            who.refusal = reason.message;
            say(state, who);
          }};
  runtime.on_signals({SIGHUP}, [&](int) { host.hand_over(successor); });
  release_signals();  // held by the binary before, if there was one
  host.start();
  say(state, who);
  runtime.run();
  if (!host.message().empty()) write_log(LogLevel::error, "worker", host.message());
  return host.exit_code();
}

}  // namespace tutti::worker
