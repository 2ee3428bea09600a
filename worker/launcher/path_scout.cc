#include "worker/launcher/path_scout.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "worker/launcher/job_folders.h"

namespace tutti::worker {

// Shared with its thread, which may outlive the scout.
struct PathScout::Thread {
  std::mutex guard;
  std::condition_variable news;
  std::deque<std::pair<Question, Found>> questions;
  bool over = false;

  void serve() {
    std::unique_lock lock(guard);
    while (true) {
      news.wait(lock, [this] { return over || !questions.empty(); });
      if (over) return;
      auto [question, found] = std::move(questions.front());
      questions.pop_front();
      lock.unlock();
      auto answer = look_at(question);
      lock.lock();
      if (over) return;
      found(std::move(answer));
    }
  }
};

Result<PathScout::Sight> look_at(const PathScout::Question& question) {
  PathScout::Sight sight;
  if (!question.folder.empty()) {
    std::error_code failed;
    sight.made_folder = question.makes_folder &&
                        std::filesystem::create_directories(question.folder, failed) &&
                        is_local_disk(question.folder);
    const FileDescriptor folder(::open(question.folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (!folder) {
      Error error = errno_error("cannot enter the folder " + question.folder,
                                failed ? failed.value() : errno);
      if (error.code == ErrorCode::not_found) error.code = ErrorCode::invalid_argument;
      return error;
    }
  }
  sight.program = question.program;
  if (sight.program.empty()) {
    LaunchPlan plan;
    plan.command = question.command;
    plan.environment = question.environment;
    auto found = find_program(plan);
    if (!found) return found.error();
    sight.program = *std::move(found);
  }
  // Relative ones are found from the folder, by the exec itself.
  if (!sight.program.starts_with('/')) return sight;
  const FileDescriptor file(::open(sight.program.c_str(), O_PATH | O_CLOEXEC));
  if (!file) return errno_error("cannot execute " + question.command.front(), errno);
  return sight;
}

PathScout::PathScout() = default;

PathScout::~PathScout() { abandon(); }

// A job's own folder, which is made for it, is known by the one that it is made in.
std::string PathScout::key_of(const Question& question) {
  std::string key = question.folder;
  if (question.makes_folder) {
    key = std::filesystem::path(question.folder).parent_path().string();
    key += '\0';
  }
  const auto add = [&](const std::string& text) {
    key += '\0';
    key += text;
  };
  add(question.command.empty() ? std::string() : question.command.front());
  for (const std::string& entry : question.environment) {
    if (entry.starts_with("PATH=")) add(entry);
  }
  return key;
}

std::optional<PathScout::Sight> PathScout::known(const Question& question, Instant now) const {
  const auto at = known_.find(key_of(question));
  if (at == known_.end() || now >= at->second.until) return std::nullopt;
  Sight sight{.program = at->second.program};
  if (!question.makes_folder) return sight;
  const bool made = ::mkdir(question.folder.c_str(), 0777) == 0;
  if (!made && errno != EEXIST) return std::nullopt;
  sight.made_folder = made && is_local_disk(question.folder);
  return sight;
}

void PathScout::believe(const Question& question, const std::string& program, Instant now) {
  if (known_.size() >= kKnownMax) known_.clear();
  known_[key_of(question)] = {program, now + kBelievedFor};
}

Result<> PathScout::look(Question question, Found found) {
  if (!current_) {
    std::erase_if(abandoned_, [](const auto& thread) { return thread.expired(); });
    if (abandoned_.size() >= kThreadsMax) {
      return Error{ErrorCode::exhausted,
                   "file systems do not answer; programs cannot be looked up"};
    }
    current_ = std::make_shared<Thread>();
    sigset_t all;
    sigset_t before;
    sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &before);
    std::thread([thread = current_] { thread->serve(); }).detach();
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }
  const std::lock_guard lock(current_->guard);
  current_->questions.emplace_back(std::move(question), std::move(found));
  current_->news.notify_one();
  return {};
}

void PathScout::abandon() {
  if (!current_) return;
  {
    const std::lock_guard lock(current_->guard);
    current_->over = true;
    current_->questions.clear();
    current_->news.notify_one();
  }
  abandoned_.push_back(current_);
  current_.reset();
}

}  // namespace tutti::worker
