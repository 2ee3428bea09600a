// The routes of /api/v1, /metrics and /healthz: what README.md of this folder promises.
//
// Heavy (coroutines): include from .cc files only. Ownership: the parts outlive the server that has
// the routes.
#pragma once

#include <functional>
#include <string>
#include <vector>

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
};

std::vector<Route> job_routes(const ClusterParts& parts);      // jobs, nodes, faults
std::vector<Route> stream_routes(const ClusterParts& parts);   // events, steps, logs
std::vector<Route> metrics_routes(const ClusterParts& parts);  // metrics, healthz

}  // namespace tutti::api
