// tutti-rank: the compute binary. A worker starts it as a rank; `tutti` starts it for verbs that need no cluster.
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

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

constexpr Tool kTools[] = {
    {"generate", tutti::serving::run_generate_tool},
    {"score", tutti::serving::run_score_tool},
    {"tokenize", tutti::tokenizers::run_tokenize_tool},
    {"tokenizer", tutti::tokenizers::run_tokenizer_tool},
};

int run_tool(const std::vector<std::string>& args) {
  for (const Tool& tool : kTools) {
    if (tool.name == args.front()) return tool.run(std::span(args).subspan(1));
  }
  std::fprintf(stderr, "tutti-rank: no tool \"%s\"; there are:", args.front().c_str());
  for (const Tool& tool : kTools) std::fprintf(stderr, " %s", std::string(tool.name).c_str());
  std::fprintf(stderr, "\n");
  return 2;
}

}  // namespace

int main(int count, char** values) {
  // A file larger than a limit allows is an error of its write, not the end of the process.
  std::signal(SIGXFSZ, SIG_IGN);
  if (count > 1) return run_tool(std::vector<std::string>(values + 1, values + count));
  const char* const socket = std::getenv(kSocketVariable);
  if (socket == nullptr) {
    std::fprintf(stderr, "tutti-rank: started by hand; a worker sets %s\n", kSocketVariable);
    return 2;
  }
  tutti::rank::RankHost host{tutti::FileDescriptor(std::atoi(socket))};
  host.run();
}
