// The routes of /api/v1, /metrics and /healthz: what README.md of this folder promises.
//
// Heavy (coroutines): include from .cc files only. Ownership: the parts outlive the server that has
// the routes.
#pragma once

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "coordinator/api/http_server.h"
#include "coordinator/api/route.h"
#include "coordinator/cluster_host.h"
#include "coordinator/store/job_stores.h"
#include "coordinator/store/notices.h"

namespace tutti::api {

struct ClusterParts {
  coordinator::ClusterHost& cluster;
  coordinator::JobStores& stores;
  coordinator::Notices& notices;
  std::function<std::string()> more_metrics;  // of others, in Prometheus' text form; any thread
  std::filesystem::path state_folder = {};    // for temporary files
};

std::vector<Route> job_routes(const ClusterParts& parts);      // jobs, faults
std::vector<Route> node_routes(const ClusterParts& parts);     // nodes
std::vector<Route> access_routes(const ClusterParts& parts);   // tokens, audit
std::vector<Route> ledger_routes(const ClusterParts& parts);   // backup
std::vector<Route> stream_routes(const ClusterParts& parts);   // events, steps, logs
std::vector<Route> metrics_routes(const ClusterParts& parts);  // metrics, healthz

inline constexpr std::size_t kNodesAtOnce = 100;

// By name, read a few at a time: with ten thousand workers the views of all take a quarter of a
// second, which no decision should have to wait for. Between two readings nodes may come and go.
boost::asio::awaitable<Result<std::vector<coordinator::NodeView>>> all_nodes(
    coordinator::ClusterHost& cluster, std::size_t at_once = kNodesAtOnce);

std::string http_metrics(const HttpServer& server);

}  // namespace tutti::api
