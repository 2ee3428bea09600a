#include "worker/agent/worker_service.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <string>

#include "protocol/actor/runtime.h"
#include "protocol/base/log.h"
#include "protocol/base/secret.h"
#include "worker/agent/worker_host.h"
#include "worker/inventory/inventory.h"

namespace tutti::worker {

namespace {

namespace fs = std::filesystem;

// Ranks of an earlier worker are dying already, by their parent-death signal; a large one takes its
// time.
constexpr Duration kLeftoversWithin = std::chrono::seconds(10);

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

fs::path rank_binary_of(const spec::WorkerConfig& config) {
  if (!config.rank_binary.empty()) return fs::absolute(config.rank_binary);
  std::error_code failed;
  const fs::path self = fs::read_symlink("/proc/self/exe", failed);
  return self.parent_path() / "tutti-rank";
}

wire::Hello introduce(const spec::WorkerConfig& config) {
  const Inventory inventory = take_inventory();
  wire::Hello hello;
  hello.worker = config.name.empty() ? inventory.host : config.name;
  hello.incarnation = random_hex(8);
  hello.boot_id = inventory.boot_id;
  hello.host = inventory.host;
  hello.version = TUTTI_VERSION;
  hello.slots = config.slots != 0 ? config.slots : inventory.cores;
  // Threads of a slot, if given, are announced as the cores that they need.
  hello.cores = config.threads != 0 ? config.threads * hello.slots : inventory.cores;
  hello.memory_bytes = inventory.memory_bytes;
  hello.cpu = inventory.cpu;
  hello.profiles = inventory.profiles;
  hello.runs_programs = config.runs_programs;
  hello.faults = config.faults;
  for (const auto& [key, value] : config.labels) hello.labels.push_back(key + "=" + value);
  return hello;
}

int refuse(const Error& error) {
  write_log(LogLevel::error, "worker", error.message);
  return 2;
}

}  // namespace

int run_worker(const spec::WorkerConfig& config) {
  ::signal(SIGPIPE, SIG_IGN);
  if (config.state.empty() || config.join.empty()) {
    return refuse({ErrorCode::invalid_argument, "a worker needs `state` and `join`"});
  }
  const auto lock = lock_state(config.state);
  if (!lock) return refuse(lock.error());
  std::error_code failed;
  const fs::path state = fs::canonical(config.state, failed);
  if (failed) return refuse(errno_error("cannot find " + config.state, failed.value()));

  HostSettings settings;
  settings.plan = {.rank_binary = rank_binary_of(config),
                   .mark = state.string(),
                   .environment = inherited_environment()};
  const std::size_t ended =
      end_marked({std::string(kWorkerMark) + "=" + state.string()}, kLeftoversWithin);
  if (ended > 0) TUTTI_LOG_INFO("worker", "ended {} processes of an earlier worker", ended);
  settings.worker.hello = introduce(config);
  settings.worker.seed = std::hash<std::string>{}(settings.worker.hello.incarnation);
  settings.spools = state / "spools";
  settings.join = fs::absolute(config.join);
  settings.learned = state / "join.learned.json";
  const auto keys = transport::load_or_make_keys(state / "worker.key");
  if (!keys) return refuse(keys.error());
  settings.keys = *keys;

  actor::Runtime runtime(0);  // all on this thread, the only one that may fork
  WorkerHost host(runtime, std::move(settings));
  runtime.on_signals({SIGTERM, SIGINT, SIGHUP}, [&host](int) { host.stop(); });
  host.start();
  runtime.run();
  if (!host.message().empty()) write_log(LogLevel::error, "worker", host.message());
  return host.exit_code();
}

}  // namespace tutti::worker
