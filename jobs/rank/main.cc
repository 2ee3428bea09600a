// tutti-rank: the compute binary. A worker starts it as a rank; `tutti` starts it for verbs that
// need no cluster.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "jobs/rank/check_tool.h"
#include "jobs/rank/devices_tool.h"
#include "jobs/rank/memory_tool.h"
#include "jobs/rank/rank_host.h"
#include "jobs/serving/generate_tool.h"
#include "jobs/serving/score_tool.h"
#include "jobs/tokenizers/tokenize_tool.h"
#include "jobs/tokenizers/tokenizer_tool.h"

namespace {

constexpr const char* kSocketVariable = "TUTTI_RANK_FD";

struct Tool {
  std::string_view name;
  int (*run)(std::span<const std::string> args);
};

int run_rank(std::span<const std::string> args);

constexpr Tool kTools[] = {
    {"run", run_rank},
    {"check", tutti::rank::run_check_tool},
    {"devices", tutti::rank::run_devices_tool},
    {"memory", tutti::rank::run_memory_tool},
    {"generate", tutti::serving::run_generate_tool},
    {"score", tutti::serving::run_score_tool},
    {"tokenize", tutti::tokenizers::run_tokenize_tool},
    {"tokenizer", tutti::tokenizers::run_tokenizer_tool},
};

// `tutti-rank run --job J --generation G --process P`: the arguments are for people who look at
// processes; what counts comes over the worker's socket.
int run_rank(std::span<const std::string>) {
  const char* const socket = std::getenv(kSocketVariable);
  if (socket == nullptr) {
    std::fprintf(stderr, "tutti-rank: only a worker runs ranks; it sets %s\n", kSocketVariable);
    return 2;
  }
  tutti::rank::RankHost host{tutti::FileDescriptor(std::atoi(socket))};
  host.run();
}

}  // namespace

int main(int count, char** values) {
  // A file larger than a limit allows is an error of its write, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  const std::vector<std::string> args(values + 1, values + count);
  for (const Tool& tool : kTools) {
    if (!args.empty() && tool.name == args.front()) return tool.run(std::span(args).subspan(1));
  }
  std::fprintf(
      stderr, "usage: tutti-rank run|check|devices|memory|generate|score|tokenize|tokenizer ...\n");
  return 2;
}
