// The worker alone, as a program: worker_main STATE JOIN RANK_BINARY [--check].
#include <cstdio>
#include <string_view>

#include "worker/agent/worker_service.h"

int main(int argc, char** argv) {
  const bool check = argc == 5 && std::string_view(argv[4]) == "--check";
  if (argc != 4 && !check) return 2;
  tutti::spec::WorkerConfig config;
  config.state = argv[1];
  config.join = argv[2];
  config.rank_binary = argv[3];
  config.name = "node-a";
  config.slots = 4;
  config.faults = true;
  if (!check) return tutti::worker::run_worker(config);
  const auto line = tutti::worker::check_worker(config);
  std::puts(line ? line->c_str() : line.error().message.c_str());
  return line ? 0 : 2;
}
