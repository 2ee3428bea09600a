#include "worker/launcher/launcher.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <new>
#include <span>
#include <string_view>

namespace tutti::worker {

namespace {

#ifdef __SANITIZE_THREAD__
// ThreadSanitizer takes every clone for a fork, so here it is one: the child has a copy of our
// memory, and what is said below of sharing it holds for its report alone.
constexpr int kShareMemory = 0;
#else
constexpr int kShareMemory = CLONE_VM;
#endif

enum Step : int { kStepFolder = 1, kStepExec, kStepLimits, kStepOther };

// Written by the child, before it ends without having executed its program.
struct ChildReport {
  volatile int failed_step = 0;  // a Step; 0: it was executed
  volatile int error = 0;
};

// Everything that the child needs, made before the fork: between fork and exec only system calls
// are safe.
struct ChildPlan {
  std::vector<char*> argv;
  std::vector<char*> envp;
  const char* path = nullptr;
  const char* folder = nullptr;
  int null = -1;
  int output = -1;
  int socket = -1;
  const std::vector<FileDescriptor>* entrances = nullptr;  // of its group
  std::uint64_t data_bytes_max = 0;                        // RLIMIT_DATA; 0: none
  std::span<const unsigned long> cpus;                     // a mask; empty: inherited
  std::string_view oom_score;
  pid_t parent = -1;
  ChildReport* report = nullptr;
};

[[noreturn]] void fail(ChildPlan& plan, Step step) {
  plan.report->error = errno;
  plan.report->failed_step = step;
  ::_exit(127);
}

void reset_signals() {
  struct sigaction standard {};
  standard.sa_handler = SIG_DFL;
  for (int signal = 1; signal < NSIG; ++signal) ::sigaction(signal, &standard, nullptr);
  sigset_t none;
  sigemptyset(&none);
  ::sigprocmask(SIG_SETMASK, &none, nullptr);
}

constexpr const char* kOomScoreFile = "/proc/self/oom_score_adj";
constexpr int kOomScoreMax = 1000;
constexpr int kRankAboveWorker = 300;

int own_oom_score() {
  int score = 0;
  const auto text = read_file(kOomScoreFile);
  if (text) std::from_chars(text->data(), text->data() + text->size(), score);
  return score;
}

void write_oom_score(std::string_view score) {
  const int file = ::open(kOomScoreFile, O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  [[maybe_unused]] const auto written = ::write(file, score.data(), score.size());
  ::close(file);
}

constexpr std::uint64_t kChildrenBytesMax = std::uint64_t{4} << 20;

// Where a linked child finds its end of the socket pair: one digit, which every shell can redirect.
constexpr int kLinkDescriptor = 3;

// The pair's end moves to its place, and nothing else that is open goes along.
void keep_link(ChildPlan& plan) {
  if (plan.socket >= 0) {
    if (::dup2(plan.socket, kLinkDescriptor) < 0) fail(plan, kStepOther);
    if (::fcntl(kLinkDescriptor, F_SETFD, 0) != 0) fail(plan, kStepOther);
  }
  const unsigned first = plan.socket >= 0 ? kLinkDescriptor + 1U : kLinkDescriptor;
  // Whatever a library has opened without close-on-exec stays here.
  ::syscall(SYS_close_range, first, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */);
}

void hold_to_limits(ChildPlan& plan) {
  for (const FileDescriptor& entrance : *plan.entrances) {
    if (::write(entrance.get(), "0", 1) != 1) fail(plan, kStepLimits);
  }
  if (plan.data_bytes_max == 0) return;
  const rlimit limit{plan.data_bytes_max, plan.data_bytes_max};
  if (::setrlimit(RLIMIT_DATA, &limit) != 0) fail(plan, kStepLimits);
}

// In the child. It shares our memory and we stand still until it has executed its program: system
// calls only, and signals stay blocked until their handlers, which are ours, are gone.
int run_child(void* argument) {
  ChildPlan& plan = *static_cast<ChildPlan*>(argument);
  ::setsid();
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail(plan, kStepOther);
  if (::getppid() != plan.parent) ::_exit(127);  // it died before the line above
  write_oom_score(plan.oom_score);
  hold_to_limits(plan);
  // A wish: what the system refuses, such as CPUs that left our cpuset meanwhile, ends no rank.
  if (!plan.cpus.empty()) {
    ::syscall(SYS_sched_setaffinity, 0, plan.cpus.size_bytes(), plan.cpus.data());
  }
  if (::dup2(plan.null, STDIN_FILENO) < 0) fail(plan, kStepOther);
  if (::dup2(plan.output, STDOUT_FILENO) < 0) fail(plan, kStepOther);
  if (::dup2(plan.output, STDERR_FILENO) < 0) fail(plan, kStepOther);
  keep_link(plan);
  if (plan.folder != nullptr && ::chdir(plan.folder) != 0) fail(plan, kStepFolder);
  reset_signals();
  ::execve(plan.path, plan.argv.data(), plan.envp.data());
  fail(plan, kStepExec);
}

std::string_view variable(const std::vector<std::string>& environment, std::string_view name) {
  for (const std::string& entry : environment) {
    if (entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=') {
      return std::string_view(entry).substr(name.size() + 1);
    }
  }
  return {};
}

bool is_executable(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode) &&
         ::access(path.c_str(), X_OK) == 0;
}

Error start_error(const LaunchPlan& plan, const ChildReport& report) {
  switch (report.failed_step) {
    case kStepFolder: {
      Error error = errno_error("cannot enter the folder " + plan.folder.string(), report.error);
      error.code = ErrorCode::invalid_argument;
      return error;
    }
    case kStepExec: return errno_error("cannot execute " + plan.command[0], report.error);
    case kStepLimits: {
      Error error = errno_error("cannot hold the process to its limits", report.error);
      error.code = ErrorCode::internal;
      return error;
    }
    default: return errno_error("cannot start " + plan.command[0], report.error);
  }
}

struct Pipe {
  FileDescriptor read;
  FileDescriptor write;
};

Result<Pipe> make_pipe() {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) return errno_error("cannot make a pipe", errno);
  return Pipe{.read = FileDescriptor(ends[0]), .write = FileDescriptor(ends[1])};
}

// As sched_setaffinity takes it.
std::vector<unsigned long> mask_of(const std::vector<int>& cpus) {
  constexpr std::size_t kBits = 8 * sizeof(unsigned long);
  std::vector<unsigned long> mask;
  for (const int cpu : cpus) {
    const auto number = static_cast<std::size_t>(cpu);
    if (mask.size() <= number / kBits) mask.resize(number / kBits + 1);
    mask[number / kBits] |= 1UL << (number % kBits);
  }
  return mask;
}

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

// Returns once the child has executed its program or ended. Copies no page tables, so that its cost
// does not grow with ours.
pid_t spawn_child(ChildPlan& plan, int& pidfd) {
  constexpr std::size_t kStackBytes = std::size_t{64} << 10;
  alignas(16) static char stack[kStackBytes];  // one thread launches
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::clone(&run_child, stack + kStackBytes,
                            kShareMemory | CLONE_VFORK | CLONE_PIDFD | SIGCHLD, &plan, &pidfd);
  const int error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return pid;
}

}  // namespace

Result<std::string> find_program(const LaunchPlan& plan) {
  if (plan.command.empty() || plan.command[0].empty()) {
    return Error{ErrorCode::invalid_argument, "the command is empty"};
  }
  const std::string& name = plan.command[0];
  if (name.find('/') != std::string::npos) return name;
  std::string_view folders = variable(plan.environment, "PATH");
  while (!folders.empty()) {
    const std::string_view folder = folders.substr(0, folders.find(':'));
    folders.remove_prefix(std::min(folders.size(), folder.size() + 1));
    if (folder.empty()) continue;
    std::string path = std::string(folder) + "/" + name;
    if (is_executable(path)) return path;
  }
  return Error{ErrorCode::not_found, "there is no program \"" + name + "\" in PATH"};
}

Result<Launched> launch(const LaunchPlan& plan) {
  const auto path = plan.program.empty() ? find_program(plan) : Result<std::string>(plan.program);
  if (!path) return path.error();
  auto output = make_pipe();
  if (!output) return output.error();
  static FileDescriptor null;  // one thread launches
  if (!null) null.reset(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return errno_error("cannot open /dev/null", errno);
  // Shared, so that what the child writes is seen here even where it has a copy of the rest.
  static void* const page = ::mmap(nullptr, sizeof(ChildReport), PROT_READ | PROT_WRITE,
                                   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (page == MAP_FAILED) return Error{ErrorCode::internal, "cannot map a page to share"};
  ChildReport& report = *new (page) ChildReport{};

  std::vector<std::string> command = plan.command;
  std::vector<std::string> environment = plan.environment;
  FileDescriptor ours;
  FileDescriptor theirs;
  if (plan.linked) {
    int pair[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
      return errno_error("cannot make a socket pair", errno);
    }
    ours.reset(pair[0]);
    theirs.reset(pair[1]);
    environment.push_back("TUTTI_RANK_FD=" + std::to_string(kLinkDescriptor));
  }
  const std::string folder = plan.folder.string();
  static const std::string oom_score =
      std::to_string(std::min(kOomScoreMax, own_oom_score() + kRankAboveWorker));
  const std::vector<unsigned long> cpus = mask_of(plan.cpus);
  ChildPlan child{.argv = pointers(command),
                  .envp = pointers(environment),
                  .path = path->c_str(),
                  .folder = folder.empty() ? nullptr : folder.c_str(),
                  .null = null.get(),
                  .output = output->write.get(),
                  .socket = theirs.get(),
                  .entrances = &plan.group.entrances,
                  .data_bytes_max = plan.data_bytes_max,
                  .cpus = cpus,
                  .oom_score = oom_score,
                  .parent = ::getpid(),
                  .report = &report};
  int pidfd = -1;
  const pid_t pid = spawn_child(child, pidfd);
  if (pid < 0) return errno_error("cannot make a process", errno);
  Launched out;
  out.pid = pid;
  out.pidfd.reset(pidfd);
  if (report.failed_step != 0) {
    ::waitpid(pid, nullptr, 0);
    return start_error(plan, report);
  }
  out.output = std::move(output->read);
  ::fcntl(out.output.get(), F_SETFL, O_NONBLOCK);
  out.socket = std::move(ours);
  return out;
}

std::optional<ExitStatus> reap(const Launched& process) {
  int status = 0;
  rusage usage{};
  const pid_t reaped = ::wait4(process.pid, &status, WNOHANG, &usage);
  if (reaped != process.pid) return std::nullopt;
  const auto ms = [](const timeval& time) {
    return static_cast<std::uint64_t>(time.tv_sec * 1000 + time.tv_usec / 1000);
  };
  ExitStatus out;
  out.cpu_ms = ms(usage.ru_utime) + ms(usage.ru_stime);
  out.memory_peak_bytes = static_cast<std::uint64_t>(usage.ru_maxrss) << 10;
  if (WIFSIGNALED(status)) {
    out.signal = WTERMSIG(status);
  } else {
    out.code = WEXITSTATUS(status);
  }
  return out;
}

std::optional<std::vector<pid_t>> children() {
  std::vector<pid_t> out;
  const std::string own = std::to_string(::getpid());
  const auto text = read_file("/proc/self/task/" + own + "/children", kChildrenBytesMax);
  if (!text) return std::nullopt;
  const char* at = text->data();
  const char* const end = at + text->size();
  for (pid_t pid = 0; at < end; ++at) {
    const auto [rest, error] = std::from_chars(at, end, pid);
    if (error != std::errc()) break;
    out.push_back(pid);
    if ((at = rest) == end) break;
  }
  return out;
}

bool reap_orphan(pid_t pid) { return ::waitpid(pid, nullptr, WNOHANG) == pid; }

bool adopt_orphans() { return ::prctl(PR_SET_CHILD_SUBREAPER, 1) == 0; }

void raise_oom_score() {
  constexpr int kWorkerAboveRest = 200;
  const int own = own_oom_score();
  const int above = std::min(kOomScoreMax - kRankAboveWorker, own + kWorkerAboveRest);
  write_oom_score(std::to_string(std::max(own, above)));
}

void signal_group(pid_t pid, int signal) {
  if (pid <= 1) return;
  ::kill(-pid, signal);
  ::kill(pid, signal);
}

}  // namespace tutti::worker
