// tutti up | coordinator | worker: the parts of a cluster, and a whole one on this machine.
#include <fmt/core.h>
#include <unistd.h>

#include <boost/json/array.hpp>
#include <boost/json/object.hpp>

#include <cerrno>
#include <memory>

#include "coordinator/coordinator_service.h"
#include "ops/cli/client/connection.h"
#include "ops/cli/client/fields.h"
#include "ops/cli/up/state_files.h"
#include "ops/cli/up/supervisor.h"
#include "ops/cli/verbs.h"
#include "protocol/spec/cluster_config.h"
#include "worker/agent/worker_service.h"

namespace tutti::cli {

namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t kConfigBytesMax = 64 << 10;
constexpr Duration kPredecessorsEndWithin = std::chrono::seconds(15);
// What a worker may take once its notice is over: to stop ranks that still run, and to say so.
constexpr Duration kAfterNotice = std::chrono::seconds(10);

struct UpOptions {
  std::string state;
  std::uint64_t slots = 0;
  std::uint64_t port = 0;
  bool faults = false;
  std::string rank_binary;
  std::vector<std::string> labels;  // key=value
};

struct Cluster {
  fs::path folder;
  spec::CoordinatorConfig coordinator;
  spec::WorkerConfig worker;
};

// What is in the file, or the defaults if there is none. Errors: its own, as of any configuration.
template <class Config>
Result<Config> read_back(const fs::path& file,
                         Result<Config> (*parse)(std::string_view, std::string_view)) {
  const Result<std::string> yaml = read_file(file, kConfigBytesMax);
  if (!yaml && yaml.error().code == ErrorCode::not_found) return Config{};
  if (!yaml) return yaml.error();
  return parse(*yaml, file.string());
}

Result<> set_labels(const std::vector<std::string>& options, spec::WorkerConfig& worker) {
  worker.labels.clear();
  for (const std::string& label : options) {
    const auto equals = label.find('=');
    if (equals == 0 || equals == std::string::npos) {
      return Error{ErrorCode::invalid_argument, "--label wants KEY=VALUE, not " + label};
    }
    worker.labels[label.substr(0, equals)] = label.substr(equals + 1);
  }
  return {};
}

// What the options say, and what an operator wrote into the files for all else. Errors: what the
// user can do about the folder.
Result<Cluster> lay_out(const UpOptions& options, const fs::path& folder) {
  Cluster cluster;
  cluster.folder = folder;
  auto coordinator = read_back(folder / "coordinator.yaml", spec::parse_coordinator_config);
  if (!coordinator) return coordinator.error();
  auto worker = read_back(folder / "worker.yaml", spec::parse_worker_config);
  if (!worker) return worker.error();
  cluster.coordinator = *std::move(coordinator);
  cluster.coordinator.state = folder.string();
  cluster.coordinator.http_port = static_cast<std::uint16_t>(options.port);
  cluster.coordinator.faults = options.faults;
  cluster.worker = *std::move(worker);
  cluster.worker.state = (folder / "worker").string();
  cluster.worker.join = (folder / "join.json").string();
  cluster.worker.slots = static_cast<std::uint32_t>(options.slots);
  cluster.worker.faults = options.faults;
  cluster.worker.rank_binary = options.rank_binary;
  if (Result<> set = set_labels(options.labels, cluster.worker); !set) return set.error();
  for (const auto& [name, yaml] : {std::pair{"coordinator.yaml", to_yaml(cluster.coordinator)},
                                   std::pair{"worker.yaml", to_yaml(cluster.worker)}}) {
    // One that says so already needs no room on a full disk.
    if (const auto said = read_file(folder / name, kConfigBytesMax); said && *said == yaml)
      continue;
    if (Result<> written = write_file_atomically(folder / name, yaml, 0600); !written) {
      return written.error();
    }
  }
  return cluster;
}

// Says where the cluster is once it answers, and that it is ready once the worker has joined.
class Readiness {
 public:
  Readiness(const fs::path& folder, const Session& session) : folder_(folder), session_(session) {
    ::setenv("TUTTI_STATE", folder.c_str(), 1);
    ::unsetenv("TUTTI_URL");
    ::unsetenv("TUTTI_TOKEN");
    connection_.api().set_patience(std::chrono::milliseconds(0));
  }

  void look() {
    if (ready_) return;
    const Result<boost::json::value> answer = connection_.api().get("/api/v1/nodes");
    if (!answer) return;
    const Result<ClusterAddress> cluster = find_cluster();
    if (!cluster) return;
    if (!session_.json() && !said_address_) {
      print(fmt::format("cluster  {}\nstate    {}\n", cluster->url, folder_.string()));
    }
    said_address_ = true;
    for (const boost::json::value& node : list_of(*answer, "nodes")) {
      if (text_of(node, "state") != "ready") continue;
      ready_ = true;
      const std::int64_t slots = whole_of(node, "slots");
      print(
          session_.json()
              ? json_line(boost::json::object{
                    {"address", cluster->url}, {"state", folder_.string()}, {"slots", slots}})
              : fmt::format("ready    {} slot{}; Ctrl-C ends it\n", slots, slots == 1 ? "" : "s"));
    }
  }

 private:
  fs::path folder_;
  const Session& session_;
  Connection connection_;
  bool said_address_ = false;
  bool ready_ = false;
};

// The worker goes first, while there is somebody to whom its ranks can leave and save.
std::vector<Part> parts_of(const Cluster& cluster, const std::string& self) {
  const auto part = [&](const std::string& name, Duration grace) {
    return Part{name,
                {self, name, "--config", (cluster.folder / (name + ".yaml")).string()},
                cluster.folder / (name + ".log"),
                grace};
  };
  const auto notice = std::chrono::milliseconds(cluster.worker.notice_ms);
  std::vector<Part> parts{part("coordinator", std::chrono::seconds(5)),
                          part("worker", notice + kAfterNotice)};
  parts.back().clean_up = [config = cluster.worker] { worker::clean_up_after_worker(config); };
  return parts;
}

int up(const UpOptions& options, Session& session) {
  if (options.port > 65'535) return fail(kUsage, "--port must be at most 65535");
  if (options.slots > 4'096) return fail(kUsage, "--slots must be at most 4096");
  std::error_code failed;
  const fs::path wanted = options.state.empty() ? default_state_folder() : fs::path(options.state);
  const fs::path folder = fs::absolute(wanted, failed).lexically_normal();
  const Result<FileDescriptor> lock = lock_state_folder(folder);
  if (!lock) return fail(kUsage, lock.error().message);
  wait_for_predecessors(folder, kPredecessorsEndWithin);
  const Result<Cluster> cluster = lay_out(options, folder);
  if (!cluster) return fail(kUsage, cluster.error().message);
  const fs::path self = fs::read_symlink("/proc/self/exe", failed);
  if (failed) return fail(kOwnError, "cannot find this program's own file: " + failed.message());

  Readiness readiness(folder, session);
  UpState state{::getpid(), 0, 0, options.faults};
  Supervisor* running = nullptr;
  Supervisor supervisor(parts_of(*cluster, self.string()),
                        {.changed =
                             [&] {
                               state.coordinator = running->pid_of("coordinator");
                               state.worker = running->pid_of("worker");
                               const Result<> written = write_up_state(folder, state);
                               if (!written) fail(written.error());
                             },
                         .idle = [&] { readiness.look(); },
                         .say = [](std::string_view line) { fail(kDone, line); }});
  running = &supervisor;
  const int code = supervisor.run();
  fs::remove(folder / "up.json", failed);
  return code;
}

int say_check(const spec::WorkerConfig& config) {
  const Result<std::string> line = worker::check_worker(config);
  if (!line) return fail(kUsage, line.error().message);
  print(*line + "\n");
  return kDone;
}

template <class Config>
int run_part(const std::string& file, Result<Config> (*parse)(std::string_view, std::string_view),
             int (*run)(const Config&)) {
  const Result<std::string> yaml = read_file(file, kConfigBytesMax);
  if (!yaml) return fail(yaml.error());
  const Result<Config> config = parse(*yaml, file);
  if (!config) return fail(config.error());
  return run(*config);
}

}  // namespace

Action declare_up(Arguments& arguments) {
  auto options = std::make_shared<UpOptions>();
  arguments.option("--slots", options->slots, "ranks at a time (default: one a core)");
  arguments.option("--state", options->state, "state folder (default: $TUTTI_STATE, else XDG's)");
  arguments.option("--port", options->port,
                   "of the HTTP API; 0: the one used before, else the system's choice");
  arguments.flag("--faults", options->faults, "allow `tutti fault` to break things on purpose");
  arguments.option("--rank-binary", options->rank_binary,
                   "what computes (default: tutti-rank beside this program)");
  arguments.repeated("--label", options->labels, "KEY=VALUE that jobs may ask for; repeatable");
  arguments.epilogue(
      "Runs a coordinator and a worker until Ctrl-C and starts them again when they die. Clients "
      "with\n"
      "the same state folder in $TUTTI_STATE find the cluster. Its logs: coordinator.log, "
      "worker.log.\n"
      "At Ctrl-C jobs finish their step and save; a second one ends everything at once. Keys that\n"
      "are written into coordinator.yaml and worker.yaml there, and have no option here, stay.");
  return [options](Session& session) { return up(*options, session); };
}

Action declare_coordinator(Arguments& arguments) {
  auto file = std::make_shared<std::string>();
  arguments.option("--config", *file, "its configuration, YAML");
  arguments.required();
  arguments.epilogue(
      "Leaves in its state folder: address and token, with which clients find it, and join.json,\n"
      "which a worker needs (0600: copy it as a secret, or make one that expires with `tutti "
      "token\n"
      "create --join NAME`). SIGTERM ends it, the jobs go on; SIGHUP reads the quotas again.\n"
      "\nKeys of the configuration:\n" +
      spec::coordinator_key_lines());
  return [file](Session&) {
    return run_part(*file, spec::parse_coordinator_config, coordinator::run_coordinator);
  };
}

Action declare_worker(Arguments& arguments) {
  auto file = std::make_shared<std::string>();
  auto check = std::make_shared<bool>(false);
  arguments.option("--config", *file, "its configuration, YAML");
  arguments.required();
  arguments.flag("--check", *check,
                 "run nothing: read the configuration and say what could be taken over");
  arguments.epilogue(
      "SIGTERM: ranks finish their step, save and end, then it ends. SIGHUP: `tutti worker "
      "restart`.\n"
      "\nKeys of the configuration:\n" +
      spec::worker_key_lines());
  return [file, check](Session&) {
    return run_part(*file, spec::parse_worker_config, *check ? say_check : worker::run_worker);
  };
}

}  // namespace tutti::cli
