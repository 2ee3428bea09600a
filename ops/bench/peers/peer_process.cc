#include "ops/bench/peers/peer_process.h"

#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <cstdio>
#include <cstdlib>

namespace tutti::bench {

namespace {
// A peer imports its libraries before its first answer.
constexpr int kAnswerMsMax = 120'000;
}  // namespace

PeerProcess::PeerProcess(const std::vector<std::string>& command) {
  int to[2];
  int from[2];
  if (command.empty() || pipe(to) != 0) return;
  if (pipe(from) != 0) {
    close(to[0]);
    close(to[1]);
    return;
  }
  std::signal(SIGPIPE, SIG_IGN);
  process_ = fork();
  if (process_ == 0) {
    dup2(to[0], 0);
    dup2(from[1], 1);
    for (const int descriptor : {to[0], to[1], from[0], from[1]}) close(descriptor);
    // What it frees it keeps, and in huge pages, as our arenas do: it is to be measured, not the
    // kernel that hands it the pages of its results anew at each run.
    setenv("MALLOC_MMAP_MAX_", "0", 0);
    setenv("MALLOC_TRIM_THRESHOLD_", "68719476736", 0);
    setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", 0);
    std::vector<char*> arguments;
    for (const std::string& part : command) arguments.push_back(const_cast<char*>(part.c_str()));
    arguments.push_back(nullptr);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
  close(to[0]);
  close(from[1]);
  to_ = to[1];
  from_ = from[0];
}

PeerProcess::~PeerProcess() { stop(); }

void PeerProcess::stop() {
  if (to_ >= 0) close(to_);
  if (from_ >= 0) close(from_);
  if (process_ > 0) {
    kill(process_, SIGKILL);
    waitpid(process_, nullptr, 0);
  }
  to_ = from_ = -1;
  process_ = -1;
}

std::string PeerProcess::ask(const std::string& line) {
  if (!available()) return {};
  const std::string whole = line + "\n";
  std::string answer;
  if (write(to_, whole.data(), whole.size()) == static_cast<ssize_t>(whole.size())) {
    pollfd ready{from_, POLLIN, 0};
    char letter = 0;
    while (poll(&ready, 1, kAnswerMsMax) == 1 && read(from_, &letter, 1) == 1) {
      if (letter == '\n') return answer;
      answer += letter;
    }
  }
  std::fprintf(stderr, "the peer does not answer: no ratios from here on\n");
  stop();
  return {};
}

bool PeerProcess::prepare(const std::string& name, long copies) {
  return ask("case " + std::to_string(copies) + " " + name) == "ready";
}

double PeerProcess::run() {
  const std::string answer = ask("run");
  return answer.empty() ? -1.0 : std::strtod(answer.c_str(), nullptr);
}

PeerProcess& torch_peer(int threads) {
  const auto command = [&]() -> std::vector<std::string> {
    const char* const venv = std::getenv("PEERS_VENV");
    if (venv == nullptr) {
      std::fprintf(stderr, "PEERS_VENV is not set: no PyTorch beside the ops\n");
      return {};
    }
    return {std::string(venv) + "/bin/python", "ops/bench/peers/peer_torch.py",
            std::to_string(threads)};
  };
  static PeerProcess peer(command());
  return peer;
}

}  // namespace tutti::bench
