// A rank of real clusters whose GPU is the emulated one: tests name it as their workers'
// `rank_binary`. Every line that it logs says so.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/rank/devices_tool.h"
#include "jobs/rank/rank_host.h"

int main(int count, char** words) {
  ::setenv("TUTTI_LOG_MARK", "emulation:", 1);
  if (count > 1 && std::string_view(words[1]) == "devices") {
    const std::vector<std::string> arguments(words + 2, words + count);
    return tutti::rank::run_devices_tool(arguments);
  }
  std::signal(SIGXFSZ, SIG_IGN);
  const char* const socket = std::getenv("TUTTI_RANK_FD");
  if (socket == nullptr) {
    std::fprintf(stderr, "tutti-rank-emulation: only a worker runs ranks\n");
    return 2;
  }
  tutti::rank::RankHost host{tutti::FileDescriptor(std::atoi(socket))};
  host.run();
}
