#include "coordinator/coordinator_service.h"

#include <arpa/inet.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include <atomic>
#include <cstdio>
#include <memory>
#include <string>

#include "coordinator/api/cluster_routes.h"
#include "coordinator/api/http_server.h"
#include "coordinator/cluster_host.h"
#include "coordinator/dashboard/dashboard_route.h"
#include "coordinator/gateway/gateway.h"
#include "coordinator/open_port.h"
#include "coordinator/scheduler/quotas.h"
#include "coordinator/state_folder.h"
#include "protocol/actor/runtime.h"
#include "protocol/base/file.h"
#include "protocol/base/log.h"

namespace tutti::coordinator {

namespace {

// Beside the main thread: the cluster, the stores, the gateway and the HTTP connections share them.
constexpr std::size_t kThreads = 3;
constexpr Duration kQuietWithin = std::chrono::seconds(2);
constexpr Duration kQuietPoll = std::chrono::milliseconds(5);

int exit_code_of(const Error& error) {
  switch (error.code) {
    case ErrorCode::invalid_argument:
    case ErrorCode::not_found:
    case ErrorCode::already_exists:
    case ErrorCode::permission_denied:
    case ErrorCode::unsupported: return 2;
    case ErrorCode::internal:
    case ErrorCode::corrupt: return 4;
    default: return 3;
  }
}

void raise_descriptor_limit() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  if (::setrlimit(RLIMIT_NOFILE, &limit) != 0)
    TUTTI_LOG_WARNING("coordinator", "cannot raise the limit of open files");
}

std::string host_for_url(const std::string& host) {
  return host.find(':') == std::string::npos ? host : "[" + host + "]";
}

bool is_any(const std::string& host) { return host == "0.0.0.0" || host == "::"; }

// The address that workers elsewhere reach this machine by, if it listens on all: that of the
// interface which leads out. Nothing is sent; the address (TEST-NET-1) only chooses the route.
std::string reachable_host(const std::string& host) {
  if (!is_any(host)) return host;
  const FileDescriptor probe(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in far{};
  far.sin_family = AF_INET;
  far.sin_port = htons(9);
  ::inet_pton(AF_INET, "192.0.2.1", &far.sin_addr);
  sockaddr_in own{};
  socklen_t size = sizeof own;
  char text[INET_ADDRSTRLEN];
  if (::connect(probe.get(), reinterpret_cast<const sockaddr*>(&far), sizeof far) != 0 ||
      ::getsockname(probe.get(), reinterpret_cast<sockaddr*>(&own), &size) != 0 ||
      ::inet_ntop(AF_INET, &own.sin_addr, text, sizeof text) == nullptr) {
    TUTTI_LOG_WARNING(
        "coordinator",
        "no way out of this machine was found; workers elsewhere cannot use join.json");
    return "127.0.0.1";
  }
  return text;
}

std::uint16_t port_of(const std::string& address) {
  return static_cast<std::uint16_t>(std::stoul(address.substr(address.rfind(':') + 1)));
}

}  // namespace

struct CoordinatorService::Parts {
  explicit Parts(const spec::CoordinatorConfig& config) : config_(config), runtime_(kThreads) {}
  Parts(const Parts&) = delete;
  Parts& operator=(const Parts&) = delete;
  ~Parts() {
    // The runtime's threads have ended by now, so everything may be taken down here.
    http_.reset();
    cluster_.reset();
    gateway_.reset();
    stores_.reset();
  }

  Result<> open();
  std::string url() const {
    // Clients on this machine use it; those elsewhere know how they reach it.
    const std::string host = is_any(config_.http_host) ? "127.0.0.1" : config_.http_host;
    return "http://" + host_for_url(host) + ":" + std::to_string(http_->port());
  }

  std::filesystem::path job_folders(const StateFolder& folder) const;
  Result<> open_cluster(const StateFolder& folder);
  Result<> open_http(const StateFolder& folder);
  Result<> write_join(const transport::KeyPair& keys, std::uint16_t port,
                      const std::string& join_token) const;
  void read_quotas_again();
  void begin_end(int exit_code);
  void end_when_quiet(Instant until);

  const spec::CoordinatorConfig config_;
  std::unique_ptr<StateFolder> folder_;
  actor::Runtime runtime_;
  actor::ActorHost host_{runtime_, {.name = "service"}};
  Notices notices_;
  std::unique_ptr<AccessTable> access_;
  std::unique_ptr<JobStores> stores_;
  std::unique_ptr<gateway::Gateway> gateway_;
  std::unique_ptr<ClusterHost> cluster_;
  std::unique_ptr<api::HttpServer> http_;
  std::atomic<int> exit_code_{0};
  std::atomic<bool> ending_{false};
};

std::filesystem::path CoordinatorService::Parts::job_folders(const StateFolder& folder) const {
  return config_.job_folders.empty() ? folder.path() / "jobs"
                                     : std::filesystem::absolute(config_.job_folders);
}

Result<> CoordinatorService::Parts::open_cluster(const StateFolder& folder) {
  const Result<transport::KeyPair> keys = folder.keys();
  if (!keys) return keys.error();
  const Result<std::string> join_token = folder.join_token();
  if (!join_token) return join_token.error();
  const Result<std::string> token = folder.api_token();
  if (!token) return token.error();
  access_ = std::make_unique<AccessTable>(*token, *join_token);
  const Ports before = folder.last_ports();

  ClusterSettings settings;
  settings.job_folders = job_folders(folder).string();
  settings.version = TUTTI_VERSION;
  settings.join_token = *join_token;
  settings.faults = config_.faults;
  settings.lease = std::chrono::milliseconds(config_.lease_ms);
  settings.heartbeat = std::chrono::milliseconds(config_.heartbeat_ms);
  settings.grow_after = std::chrono::milliseconds(config_.grow_after_ms);
  settings.notice = std::chrono::milliseconds(config_.notice_ms);
  settings.drain = std::chrono::milliseconds(config_.drain_ms);
  Result<scheduler::Quotas> quotas = scheduler::parse_quotas(config_.quotas);
  if (!quotas) return quotas.error();
  settings.quotas = *std::move(quotas);

  ClusterHostLinks links;
  links.stores = stores_.get();
  links.notices = &notices_;
  links.access = access_.get();
  links.on_revoked = [this](std::uint64_t revoked) {
    if (http_) http_->end_of(revoked);
  };
  links.open_serving = [this](const OpenServing& serving) {
    gateway_->open({serving.job, serving.model, serving.endpoint, serving.key});
  };
  links.close_serving = [this](const CloseServing& serving) { gateway_->close(serving.job); };
  links.on_fatal = [this](const Error& error) { begin_end(exit_code_of(error)); };
  links.replace_keys = [this](const transport::KeyPair& made, const ReplacedKeys& replaced) {
    return folder_->replace_keys(made, replaced);
  };
  links.forget_replaced_keys = [this] { folder_->forget_replaced_keys(); };
  links.announce_keys = [this, token = *join_token](const transport::KeyPair& made,
                                                    std::uint16_t port) -> Result<> {
    if (Result<> said = write_join(made, port, token); !said) return said;
    return folder_->write_ports({http_->port(), port, cluster_->liveness_port()});
  };
  cluster_ = std::make_unique<ClusterHost>(runtime_, std::move(links));

  Result<std::unique_ptr<Ledger>> ledger = Ledger::open({.folder = folder.path()});
  if (!ledger) return ledger.error();
  ClusterHostOptions options;
  options.host = config_.control_host;
  options.control = {config_.control_port, before.control};
  options.liveness = {config_.liveness_port, before.liveness};
  options.keys = *keys;
  options.replaced = folder.replaced_keys();
  if (Result<> opened = cluster_->open(options, settings, *std::move(ledger)); !opened)
    return opened;
  return write_join(*keys, port_of(cluster_->control_address()), *join_token);
}

Result<> CoordinatorService::Parts::write_join(const transport::KeyPair& keys, std::uint16_t port,
                                               const std::string& join_token) const {
  const std::string host = host_for_url(reachable_host(config_.control_host));
  return folder_->write_join(
      {"tcp://" + host + ":" + std::to_string(port), keys.public_key, join_token});
}

Result<> CoordinatorService::Parts::open_http(const StateFolder& folder) {
  auto server = open_port({config_.http_port, folder.last_ports().http}, [&](std::uint16_t port) {
    api::HttpServerOptions options;
    options.host = config_.http_host;
    options.port = port;
    options.access = access_.get();
    options.on_denied = [this](Caller caller) {
      // A mailbox that is full has more to do than to write down refusals.
      static_cast<void>(cluster_->host().tell(
          [this, caller = std::move(caller)] { cluster_->note_denied(caller); }));
    };
    return api::HttpServer::open(runtime_, options);
  });
  if (!server) return server.error();
  http_ = *std::move(server);
  const api::ClusterParts parts{*cluster_, *stores_, notices_,
                                [this] { return api::http_metrics(*http_) + gateway_->metrics(); },
                                folder.path()};
  std::vector<api::Route> routes;
  for (auto part : {api::job_routes(parts), api::node_routes(parts), api::access_routes(parts),
                    api::ledger_routes(parts), api::stream_routes(parts),
                    api::metrics_routes(parts), dashboard::routes(), gateway_->routes()}) {
    routes.insert(routes.end(), part.begin(), part.end());
  }
  http_->start(std::move(routes));
  return folder.write_address(url());
}

Result<> CoordinatorService::Parts::open() {
  raise_descriptor_limit();
  Result<StateFolder> folder = StateFolder::open(config_.state);
  if (!folder) return folder.error();
  folder_ = std::make_unique<StateFolder>(*std::move(folder));
  stores_ = std::make_unique<JobStores>(runtime_, folder_->path() / "jobs", job_folders(*folder_),
                                        notices_);
  gateway_ = std::make_unique<gateway::Gateway>(runtime_);
  if (Result<> opened = open_cluster(*folder_); !opened) return opened;
  if (Result<> opened = open_http(*folder_); !opened) return opened;
  const Ports ports{http_->port(), port_of(cluster_->control_address()), cluster_->liveness_port()};
  if (Result<> written = folder_->write_ports(ports); !written) return written;
  TUTTI_LOG_INFO("coordinator", "API at {}, workers at {}, state in {}", url(),
                 cluster_->control_address(), folder_->path().string());
  return {};
}

// What is wrong with them is said, and the old ones stay in force.
void CoordinatorService::Parts::read_quotas_again() {
  const auto fail = [](const std::string& why) {
    TUTTI_LOG_ERROR("coordinator", "quotas are not read again: {}", why);
  };
  if (config_.source.empty()) return fail("there is no configuration file");
  const Result<std::string> yaml = read_file(config_.source);
  if (!yaml) return fail(yaml.error().message);
  const auto config = spec::parse_coordinator_config(*yaml, config_.source);
  if (!config) return fail(config.error().message);
  const Result<scheduler::Quotas> quotas = scheduler::parse_quotas(config->quotas);
  if (!quotas) return fail(quotas.error().message);
  const Result<> told = cluster_->host().tell([this, quotas = *quotas] {
    cluster_->set_quotas(quotas, {.user = "operator",
                                  .token = 0,
                                  .from = "SIGHUP",
                                  .action = "quotas reload",
                                  .target = "quotas",
                                  .detail = config_.source});
  });
  if (!told) return fail(told.error().message);
  TUTTI_LOG_INFO("coordinator", "quotas were read again from {}", config_.source);
}

// HTTP ends first, so that nobody is told what is not durable; then the workers' links.
void CoordinatorService::Parts::begin_end(int exit_code) {
  if (ending_.exchange(true)) return;
  exit_code_ = exit_code;
  if (http_) http_->stop();
  static_cast<void>(cluster_->host().tell([this] { cluster_->close(); }));
  if (!host_.tell([this] { end_when_quiet(monotonic_now() + kQuietWithin); })) runtime_.stop();
}

// Connections close on their own strands; clients are to see that before the process ends.
void CoordinatorService::Parts::end_when_quiet(Instant until) {
  if (!http_ || http_->counters().connections == 0 || monotonic_now() >= until)
    return runtime_.stop();
  host_.arm(kQuietPoll, [this, until] { end_when_quiet(until); });
}

CoordinatorService::CoordinatorService(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}
CoordinatorService::~CoordinatorService() = default;

Result<std::unique_ptr<CoordinatorService>> CoordinatorService::open(
    const spec::CoordinatorConfig& config) {
  auto parts = std::make_unique<Parts>(config);
  if (Result<> opened = parts->open(); !opened) return opened.error();
  return std::unique_ptr<CoordinatorService>(new CoordinatorService(std::move(parts)));
}

int CoordinatorService::run() {
  parts_->runtime_.on_signals({SIGTERM, SIGINT}, [this](int) {
    TUTTI_LOG_INFO("coordinator", "ending");
    end();
  });
  parts_->runtime_.on_signals({SIGHUP}, [this](int) { parts_->read_quotas_again(); });
  parts_->runtime_.run();
  return parts_->exit_code_;
}

void CoordinatorService::end() { parts_->begin_end(0); }

std::string CoordinatorService::url() const { return parts_->url(); }

std::vector<std::string> CoordinatorService::routes() const {
  std::vector<std::string> out;
  for (const api::RouteCount& route : parts_->http_->route_counts()) {
    if (!route.path.empty()) out.push_back(route.method + ' ' + route.path);
  }
  return out;
}

int run_coordinator(const spec::CoordinatorConfig& config) {
  auto service = CoordinatorService::open(config);
  if (!service) {
    std::fprintf(stderr, "tutti coordinator: %s\n", service.error().message.c_str());
    return exit_code_of(service.error());
  }
  return (*service)->run();
}

}  // namespace tutti::coordinator
