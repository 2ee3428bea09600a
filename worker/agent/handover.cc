#include "worker/agent/handover.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <string_view>

#include "protocol/wire/codec.h"
#include "worker/launcher/process_plan.h"

namespace tutti::worker {

namespace {

constexpr std::uint64_t kHandoverBytesMax = std::uint64_t{256} << 20;

std::vector<int> descriptors_of(const Handover& handover) {
  std::vector<int> out = {handover.lock};
  for (const HandedProcess& process : handover.processes) {
    for (const int descriptor : {process.pidfd, process.output, process.socket}) {
      out.push_back(descriptor);
    }
  }
  for (const HandedAddress& address : handover.addresses) out.push_back(address.socket);
  std::erase_if(out, [](int descriptor) { return descriptor < 0; });
  return out;
}

enum class OnExec { close, keep };
bool mark(const std::vector<int>& descriptors, OnExec on_exec) {
  bool all = true;
  for (const int descriptor : descriptors) {
    all = ::fcntl(descriptor, F_SETFD, on_exec == OnExec::close ? FD_CLOEXEC : 0) == 0 && all;
  }
  return all;
}

Result<FileDescriptor> in_memory(const std::string& bytes) {
  FileDescriptor file(::memfd_create("tutti-handover", 0));
  if (!file) return errno_error("cannot make a file in memory", errno);
  std::size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::write(file.get(), bytes.data() + done, bytes.size() - done);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) return errno_error("cannot write a file in memory", errno);
    done += static_cast<std::size_t>(count);
  }
  ::lseek(file.get(), 0, SEEK_SET);
  return file;
}

}  // namespace

std::string encode_handover(const Handover& handover) { return wire::encode_body(handover); }

Result<Handover> decode_handover(std::string_view bytes) {
  auto out = wire::decode_body<Handover>(bytes);
  if (out && out->version != kHandoverVersion) {
    return Error{ErrorCode::unsupported,
                 "a handover of version " + std::to_string(out->version) + " is not understood"};
  }
  return out;
}

namespace {

void change_mask(int how) {
  sigset_t set;
  sigemptyset(&set);
  for (const int signal : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&set, signal);
  ::pthread_sigmask(how, &set, nullptr);
}

}  // namespace

// Other threads have all of them blocked, so that this one's mask is the process's.
void hold_signals() { change_mask(SIG_BLOCK); }
void release_signals() { change_mask(SIG_UNBLOCK); }

Error exec_with(const std::vector<std::string>& command, const Handover& handover) {
  const auto file = in_memory(encode_handover(handover));
  if (!file) return file.error();
  const std::vector<int> descriptors = descriptors_of(handover);
  if (!mark(descriptors, OnExec::keep)) {
    mark(descriptors, OnExec::close);
    return errno_error("cannot hand a descriptor over", errno);
  }
  ::setenv(kHandoverName, std::to_string(file->get()).c_str(), 1);
  std::vector<std::string> words = command;
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  ::execv(arguments.front(), arguments.data());
  const Error error = errno_error("cannot execute " + words.front(), errno);
  ::unsetenv(kHandoverName);
  mark(descriptors, OnExec::close);
  return error;
}

Result<std::optional<Handover>> take_handover() {
  const char* text = std::getenv(kHandoverName);
  if (text == nullptr) return std::optional<Handover>();
  const std::string_view digits = text;
  int descriptor = -1;
  std::from_chars(digits.data(), digits.data() + digits.size(), descriptor);
  ::unsetenv(kHandoverName);
  const FileDescriptor file(descriptor);
  const auto bytes = read_file("/proc/self/fd/" + std::to_string(descriptor), kHandoverBytesMax);
  if (!bytes) return Error(bytes.error()).with_context("the handover");
  auto handover = decode_handover(*bytes);
  if (!handover) return handover.error();
  mark(descriptors_of(*handover), OnExec::close);
  return std::optional<Handover>(*std::move(handover));
}

}  // namespace tutti::worker
