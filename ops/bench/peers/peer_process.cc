#include "ops/bench/peers/peer_process.h"

#include <poll.h>
#include <sched.h>
#include <sys/wait.h>
#include <unistd.h>
#include <csignal>

#include <cstdio>
#include <cstdlib>
#include <utility>

#include "kernels/tensor/cores.h"

namespace tutti::bench {

namespace {

// A peer imports its libraries before its first answer.
constexpr int kAnswerMsMax = 120'000;
constexpr int kStartsMax = 4;

// The calling thread alone may be bound to one core; who is started by it would have no other.
cpu_set_t cores_of_all() {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int core : kernels::cores_from_environment()) CPU_SET(core, &set);
  if (CPU_COUNT(&set) == 0) sched_getaffinity(0, sizeof set, &set);
  return set;
}

}  // namespace

PeerProcess::PeerProcess(std::vector<std::string> command) : command_(std::move(command)) {}

void PeerProcess::start() {
  int to[2];
  int from[2];
  if (command_.empty() || starts_ == kStartsMax || pipe(to) != 0) return;
  ++starts_;
  if (pipe(from) != 0) {
    close(to[0]);
    close(to[1]);
    return;
  }
  std::signal(SIGPIPE, SIG_IGN);
  const cpu_set_t cores = cores_of_all();
  process_ = fork();
  if (process_ == 0) {
    sched_setaffinity(0, sizeof cores, &cores);
    dup2(to[0], 0);
    dup2(from[1], 1);
    for (const int descriptor : {to[0], to[1], from[0], from[1]}) close(descriptor);
    // What it frees it keeps, and in huge pages, as our arenas do: it is to be measured, not the
    // kernel that hands it the pages of its results anew at each run.
    setenv("MALLOC_MMAP_MAX_", "0", 0);
    setenv("MALLOC_TRIM_THRESHOLD_", "68719476736", 0);
    setenv("GLIBC_TUNABLES", "glibc.malloc.hugetlb=1", 0);
    std::vector<char*> arguments;
    for (const std::string& part : command_) arguments.push_back(const_cast<char*>(part.c_str()));
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
  std::fprintf(stderr, "the peer does not answer\n");
  stop();
  return {};
}

PeerAnswer PeerProcess::prepare(const std::string& name, long copies) {
  if (!available()) start();
  const std::string answer = ask("case " + std::to_string(copies) + " " + name);
  if (answer.empty()) return PeerAnswer::none;
  return answer == "ready" ? PeerAnswer::ready : PeerAnswer::unknown;
}

double PeerProcess::run() {
  const std::string answer = ask("run");
  return answer.empty() ? -1.0 : std::strtod(answer.c_str(), nullptr);
}

bool has_torch_peer() { return std::getenv("PEERS_VENV") != nullptr; }

PeerProcess& torch_peer(int threads) {
  const auto command = [&]() -> std::vector<std::string> {
    if (!has_torch_peer()) {
      std::fprintf(stderr, "PEERS_VENV is not set: no PyTorch beside the ops\n");
      return {};
    }
    return {std::string(std::getenv("PEERS_VENV")) + "/bin/python", "ops/bench/peers/peer_torch.py",
            std::to_string(threads)};
  };
  static PeerProcess peer(command());
  return peer;
}

}  // namespace tutti::bench
