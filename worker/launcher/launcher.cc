#include "worker/launcher/launcher.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string_view>

namespace tutti::worker {

namespace {

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
  int status = -1;  // where the errno of a failed start is written
  pid_t parent = -1;
};

enum class Step : int { folder, exec, other };

struct StartFailure {
  Step step = Step::other;
  int error = 0;
};

[[noreturn]] void fail(const ChildPlan& plan, Step step) {
  const StartFailure failure{.step = step, .error = errno};
  [[maybe_unused]] const auto written = ::write(plan.status, &failure, sizeof failure);
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

void raise_oom_score() {
  const int file = ::open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (file < 0) return;
  [[maybe_unused]] const auto written = ::write(file, "500", 3);
  ::close(file);
}

// Where a linked child finds its end of the socket pair: one digit, which every shell can redirect.
constexpr int kLinkDescriptor = 3;

// The pair's end moves to its place, and nothing else that is open goes along.
void keep_link(ChildPlan& plan) {
  if (plan.socket >= 0) {
    if (plan.status == kLinkDescriptor) {
      plan.status = ::fcntl(plan.status, F_DUPFD_CLOEXEC, kLinkDescriptor + 1);
    }
    if (::dup2(plan.socket, kLinkDescriptor) < 0) fail(plan, Step::other);
    if (::fcntl(kLinkDescriptor, F_SETFD, 0) != 0) fail(plan, Step::other);
  }
  const unsigned first = plan.socket >= 0 ? kLinkDescriptor + 1U : kLinkDescriptor;
  // Whatever a library has opened without close-on-exec stays here.
  ::syscall(SYS_close_range, first, ~0U, 4U /* CLOSE_RANGE_CLOEXEC */);
}

[[noreturn]] void run_child(ChildPlan plan) {
  ::setsid();
  reset_signals();
  if (::prctl(PR_SET_PDEATHSIG, SIGKILL) != 0) fail(plan, Step::other);
  if (::getppid() != plan.parent) ::_exit(127);  // it died before the line above
  raise_oom_score();
  if (::dup2(plan.null, STDIN_FILENO) < 0) fail(plan, Step::other);
  if (::dup2(plan.output, STDOUT_FILENO) < 0) fail(plan, Step::other);
  if (::dup2(plan.output, STDERR_FILENO) < 0) fail(plan, Step::other);
  keep_link(plan);
  if (plan.folder != nullptr && ::chdir(plan.folder) != 0) fail(plan, Step::folder);
  ::execve(plan.path, plan.argv.data(), plan.envp.data());
  fail(plan, Step::exec);
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

Error start_error(const LaunchPlan& plan, const StartFailure& failure) {
  switch (failure.step) {
    case Step::folder: {
      Error error = errno_error("cannot enter the folder " + plan.folder.string(), failure.error);
      error.code = ErrorCode::invalid_argument;
      return error;
    }
    case Step::exec: return errno_error("cannot execute " + plan.command[0], failure.error);
    case Step::other: break;
  }
  return errno_error("cannot start " + plan.command[0], failure.error);
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

std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> out;
  out.reserve(texts.size() + 1);
  for (std::string& text : texts) out.push_back(text.data());
  out.push_back(nullptr);
  return out;
}

// The failure that the child wrote; nothing when the pipe was closed by its exec.
std::optional<StartFailure> read_failure(int status) {
  StartFailure failure;
  for (;;) {
    const ssize_t count = ::read(status, &failure, sizeof failure);
    if (count < 0 && errno == EINTR) continue;
    if (count == static_cast<ssize_t>(sizeof failure)) return failure;
    return std::nullopt;
  }
}

pid_t fork_child(const ChildPlan& plan) {
  // Signals stay blocked in the child until its handlers are the default ones.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  const pid_t pid = ::fork();
  if (pid == 0) run_child(plan);
  const int error = errno;
  ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  errno = error;
  return pid;
}

}  // namespace

Result<Launched> launch(const LaunchPlan& plan) {
  const auto path = find_program(plan);
  if (!path) return path.error();
  auto output = make_pipe();
  if (!output) return output.error();
  auto status = make_pipe();
  if (!status) return status.error();
  const FileDescriptor null(::open("/dev/null", O_RDWR | O_CLOEXEC));
  if (!null) return errno_error("cannot open /dev/null", errno);

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
  const ChildPlan child{.argv = pointers(command),
                        .envp = pointers(environment),
                        .path = path->c_str(),
                        .folder = folder.empty() ? nullptr : folder.c_str(),
                        .null = null.get(),
                        .output = output->write.get(),
                        .socket = theirs.get(),
                        .status = status->write.get(),
                        .parent = ::getpid()};
  const pid_t pid = fork_child(child);
  if (pid < 0) return errno_error("cannot fork", errno);
  status->write.reset();
  if (const auto failure = read_failure(status->read.get())) {
    ::waitpid(pid, nullptr, 0);
    return start_error(plan, *failure);
  }
  Launched out;
  out.pid = pid;
  out.pidfd.reset(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
  if (!out.pidfd) {
    const Error error = errno_error("cannot watch the process", errno);
    ::kill(pid, SIGKILL);
    ::waitpid(pid, nullptr, 0);
    return error;
  }
  out.output = std::move(output->read);
  ::fcntl(out.output.get(), F_SETFL, O_NONBLOCK);
  out.socket = std::move(ours);
  return out;
}

std::optional<ExitStatus> reap(const Launched& process) {
  int status = 0;
  const pid_t reaped = ::waitpid(process.pid, &status, WNOHANG);
  if (reaped != process.pid) return std::nullopt;
  if (WIFSIGNALED(status)) return ExitStatus{.code = 0, .signal = WTERMSIG(status)};
  return ExitStatus{.code = WEXITSTATUS(status), .signal = 0};
}

void signal_group(pid_t pid, int signal) {
  if (pid <= 1) return;
  ::kill(-pid, signal);
  ::kill(pid, signal);
}

}  // namespace tutti::worker
