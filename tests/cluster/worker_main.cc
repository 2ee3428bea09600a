// The worker alone, as a program: worker_main STATE JOIN RANK_BINARY.
#include "worker/agent/worker_service.h"

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  tutti::spec::WorkerConfig config;
  config.state = argv[1];
  config.join = argv[2];
  config.rank_binary = argv[3];
  config.name = "node-a";
  config.slots = 4;
  config.faults = true;
  return tutti::worker::run_worker(config);
}
