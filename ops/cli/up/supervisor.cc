#include "ops/cli/up/supervisor.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "ops/cli/session.h"
#include "protocol/base/file.h"

namespace tutti::cli {

namespace {

constexpr Duration kTick = std::chrono::milliseconds(100);
constexpr Duration kPauseMin = std::chrono::milliseconds(100);
constexpr Duration kPauseMax = std::chrono::seconds(5);
constexpr Duration kLongLife = std::chrono::seconds(10);  // it worked: the count starts anew
constexpr Duration kQuietWait = std::chrono::seconds(1);  // longer than that is said
// A worker that is told twice kills its ranks, and is gone after 3.5 s whatever they do.
constexpr Duration kHurryMax = std::chrono::seconds(4);
constexpr int kQuickDeathsMax = 10;
constexpr std::uint64_t kLogBytesMax = std::uint64_t{16} << 20;

sigset_t handled_signals() {
  sigset_t set;
  ::sigemptyset(&set);
  for (const int number : {SIGINT, SIGTERM, SIGHUP, SIGCHLD}) ::sigaddset(&set, number);
  return set;
}

// The next signal, or 0 after `within`.
int next_signal(Duration within) {
  const sigset_t set = handled_signals();
  const auto ns = within.count();
  const timespec timeout{static_cast<time_t>(ns / 1'000'000'000),
                         static_cast<long>(ns % 1'000'000'000)};
  const int number = ::sigtimedwait(&set, nullptr, &timeout);
  return number < 0 ? 0 : number;
}

bool asks_to_end(int signal_number) {
  return signal_number == SIGINT || signal_number == SIGTERM || signal_number == SIGHUP;
}

// A program does not send itself these: a person, a test or the kernel's want of memory does.
RestartPolicy::Cause cause_of(int status) {
  const int number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  const bool sent = number == SIGKILL || number == SIGTERM || number == SIGINT ||
                    number == SIGHUP || number == SIGQUIT;
  return sent ? RestartPolicy::Cause::killed : RestartPolicy::Cause::own;
}

std::string describe_status(int status) {
  if (WIFSIGNALED(status)) return fmt::format("was killed by signal {}", WTERMSIG(status));
  return fmt::format("ended with exit code {}", WEXITSTATUS(status));
}

// The last line that a child wrote, without what stands before its message.
std::string last_words(const std::filesystem::path& log) {
  const Result<std::string> text = read_file(log, kLogBytesMax * 2);
  if (!text) return "";
  const std::size_t end = text->find_last_not_of('\n');
  if (end == std::string::npos) return "";
  const std::size_t before = text->rfind('\n', end);
  const std::string line = text->substr(before + 1, end - before);
  for (const std::string_view prefix : {" error ", "tutti "}) {
    const std::size_t at = line.find(prefix);
    if (at != std::string::npos) return line.substr(at + prefix.size());
  }
  return line;
}

// In the child, between fork and exec: only async-signal-safe calls.
[[noreturn]] void become(char* const* arguments, int log, pid_t parent) {
  ::setpgid(0, 0);
  ::prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (::getppid() != parent) ::_exit(kInfrastructure);  // it died before the line above
  const sigset_t set = handled_signals();
  ::sigprocmask(SIG_UNBLOCK, &set, nullptr);
  for (const int number : {SIGPIPE, SIGINT, SIGTERM, SIGHUP}) ::signal(number, SIG_DFL);
  const int null = ::open("/dev/null", O_RDONLY);
  ::dup2(null, STDIN_FILENO);
  ::dup2(log, STDOUT_FILENO);
  ::dup2(log, STDERR_FILENO);
  ::execv(arguments[0], arguments);
  ::_exit(kInfrastructure);
}

}  // namespace

std::optional<Duration> RestartPolicy::after_exit(Duration lived, Cause cause) {
  if (cause == Cause::refused && lived < kLongLife) return std::nullopt;
  if (lived >= kLongLife) quick_deaths_ = own_deaths_ = 0;
  quick_deaths_ = std::min(quick_deaths_ + 1, kQuickDeathsMax);
  if (cause == Cause::own) ++own_deaths_;
  if (own_deaths_ > kQuickDeathsMax) return std::nullopt;
  return std::min(kPauseMax, kPauseMin * (1 << (quick_deaths_ - 1)));
}

struct Supervisor::Child {
  Part part;
  pid_t pid = 0;
  Instant started;
  Instant next_start;
  RestartPolicy policy;
};

Supervisor::Supervisor(std::vector<Part> parts, Events events) : events_(std::move(events)) {
  for (Part& part : parts) children_.push_back({std::move(part), 0, {}, {}, {}});
}

Supervisor::~Supervisor() {
  for (Child& child : children_) {
    if (child.pid > 0) ::kill(child.pid, SIGKILL);
    if (child.pid > 0) ::waitpid(child.pid, nullptr, 0);
  }
}

pid_t Supervisor::pid_of(std::string_view name) const {
  for (const Child& child : children_) {
    if (child.part.name == name) return child.pid;
  }
  return 0;
}

void Supervisor::start(Child& child) {
  std::error_code failed;
  const bool large = std::filesystem::file_size(child.part.log, failed) > kLogBytesMax;
  const FileDescriptor log(
      ::open(child.part.log.c_str(),
             O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | (large && !failed ? O_TRUNC : 0), 0600));
  std::vector<char*> arguments;
  for (std::string& word : child.part.command) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  const pid_t parent = ::getpid();
  child.started = monotonic_now();
  const pid_t pid = ::fork();
  if (pid == 0) become(arguments.data(), log.get(), parent);
  if (pid < 0) {
    events_.say(fmt::format("cannot start the {}: {}", child.part.name, std::strerror(errno)));
    child.next_start = child.started + kPauseMax;
    return;
  }
  child.pid = pid;
  events_.changed();
}

// The exit code of the whole if this child's end is the end of all.
std::optional<int> Supervisor::on_exit(Child& child, int status) {
  child.pid = 0;
  events_.changed();
  const std::string& name = child.part.name;
  const int code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  const bool refused = code == kUsage || code == kRefused;
  const std::optional<Duration> pause = child.policy.after_exit(
      monotonic_now() - child.started, refused ? RestartPolicy::Cause::refused : cause_of(status));
  if (!pause && refused) {
    const std::string why = last_words(child.part.log);
    events_.say(why.empty() ? fmt::format("the {} {}; see {}", name, describe_status(status),
                                          child.part.log.string())
                            : why);
    return code;
  }
  if (!pause) {
    events_.say(fmt::format("the {} cannot be kept running, it {}; see {}", name,
                            describe_status(status), child.part.log.string()));
    return kInfrastructure;
  }
  events_.say(fmt::format("the {} {}; starting it again", name, describe_status(status)));
  child.next_start = monotonic_now() + *pause;
  return std::nullopt;
}

std::optional<int> Supervisor::reap(Child& child) {
  if (child.pid <= 0) return std::nullopt;
  int status = 0;
  const pid_t reaped = ::waitpid(child.pid, &status, WNOHANG);
  if (reaped != child.pid) return std::nullopt;
  return on_exit(child, status);
}

int Supervisor::run() {
  const sigset_t set = handled_signals();
  ::sigprocmask(SIG_BLOCK, &set, nullptr);
  for (Child& child : children_) start(child);
  while (true) {
    if (asks_to_end(next_signal(kTick))) {
      stop_all();
      return kDone;
    }
    for (Child& child : children_) {
      if (const std::optional<int> over = reap(child)) {
        stop_all();
        return *over;
      }
      if (child.pid == 0 && monotonic_now() >= child.next_start) start(child);
    }
    events_.idle();
  }
}

Supervisor::Wait Supervisor::wait_for(Child& child) {
  const Instant begun = monotonic_now();
  const Instant until = begun + child.part.grace;
  bool said = false;
  while (true) {
    if (::waitpid(child.pid, nullptr, WNOHANG) == child.pid) return Wait::ended;
    const Instant now = monotonic_now();
    if (now >= until) return Wait::late;
    if (!said && now - begun >= kQuietWait) {
      said = true;
      events_.say(
          fmt::format("the {} ends what it has begun, within {} s; Ctrl-C again ends it now",
                      child.part.name, to_ms(child.part.grace) / 1000));
    }
    if (asks_to_end(next_signal(std::min(kTick, until - now)))) return Wait::asked_again;
  }
}

// Told anew with every tick: of two signals that come at once, a process sees one.
Supervisor::Wait Supervisor::hurry(Child& child) {
  const Instant until = monotonic_now() + kHurryMax;
  while (true) {
    if (::waitpid(child.pid, nullptr, WNOHANG) == child.pid) return Wait::ended;
    if (monotonic_now() >= until) return Wait::late;
    ::kill(child.pid, SIGTERM);
    if (asks_to_end(next_signal(kTick))) return Wait::asked_again;
  }
}

void Supervisor::stop_all() {
  bool in_hurry = false;
  for (auto child = children_.rbegin(); child != children_.rend(); ++child) {
    Wait waited = Wait::late;  // what is down already may have left something behind
    if (child->pid > 0) {
      ::kill(child->pid, SIGTERM);
      waited = in_hurry ? hurry(*child) : wait_for(*child);
      if (waited == Wait::asked_again) {
        in_hurry = true;
        waited = hurry(*child);
      }
      if (waited != Wait::ended) {
        ::kill(child->pid, SIGKILL);
        ::waitpid(child->pid, nullptr, 0);
      }
      child->pid = 0;
      events_.changed();
    }
    if (waited != Wait::ended && child->part.clean_up) child->part.clean_up();
  }
}

}  // namespace tutti::cli
