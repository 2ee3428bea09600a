// The coordinator as a process: state folder, lock, keys, ports, ledger, endpoints, API; from start
// to a quiet end.
//
//   <state>/coordinator.lock   held while it runs: one coordinator a folder
//           address, token, join.json   for clients and workers (cluster_config.h), 0600
//           coordinator.key    CURVE keys, 0600       ports.json   the ports used before
//           replaced.key       those of before, 0600, during a rotation's overlap
//           ledger.sqlite      the journal            jobs/ID/     records of jobs, and what their
//           ranks write
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "protocol/base/result.h"
#include "protocol/spec/cluster_config.h"

namespace tutti::coordinator {

class CoordinatorService {
 public:
  // Everything listens when it returns; serving begins with run. Errors: see run_coordinator.
  static Result<std::unique_ptr<CoordinatorService>> open(const spec::CoordinatorConfig& config);
  ~CoordinatorService();
  CoordinatorService(const CoordinatorService&) = delete;
  CoordinatorService& operator=(const CoordinatorService&) = delete;

  // Serves on this thread and some of its own until end(); the exit code. Once.
  int run();
  // Any thread.
  void end();

  std::string url() const;
  // "GET /api/v1/jobs", as served.
  std::vector<std::string> routes() const;

 private:
  struct Parts;
  explicit CoordinatorService(std::unique_ptr<Parts> parts);

  std::unique_ptr<Parts> parts_;
};

// Runs until SIGTERM or SIGINT. Exit code: 0 ended in order; 2 the configuration or the state
// folder is unusable (one line on standard error says how); 3 the disk or network failed; 4 our own
// error. Call on the main thread, once.
int run_coordinator(const spec::CoordinatorConfig& config);

}  // namespace tutti::coordinator
