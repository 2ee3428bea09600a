#include "worker/agent/rank_devices.h"

#include <poll.h>
#include <signal.h>
#include <unistd.h>

#include <boost/json/parse.hpp>

#include <cerrno>
#include <exception>

#include "worker/launcher/launcher.h"

namespace tutti::worker {

namespace json = boost::json;

namespace {

constexpr std::size_t kOutputBytesMax = 1 << 20;
constexpr std::size_t kDevicesMax = 64;

// Everything until its end or the deadline; whether it ended.
bool read_all(int output, Instant until, std::string& text) {
  char piece[4096];
  for (;;) {
    const Duration left = until - monotonic_now();
    if (left <= Duration::zero() || text.size() > kOutputBytesMax) return false;
    pollfd wait{.fd = output, .events = POLLIN, .revents = 0};
    const auto ms = std::chrono::duration_cast<std::chrono::milliseconds>(left).count();
    if (::poll(&wait, 1, static_cast<int>(ms) + 1) < 0 && errno != EINTR) return false;
    const auto count = ::read(output, piece, sizeof piece);
    if (count == 0) return true;
    if (count > 0) text.append(piece, static_cast<std::size_t>(count));
    if (count < 0 && errno != EAGAIN && errno != EINTR) return false;
  }
}

RankDevices devices_of(const json::object& line) {
  RankDevices out;
  for (const json::value& profile : line.at("profiles").as_array()) {
    out.profiles.emplace_back(profile.as_string());
  }
  out.stack = std::string(line.at("stack").as_string());
  for (const json::value& device : line.at("devices").as_array()) {
    if (out.devices.size() == kDevicesMax) break;
    out.devices.push_back({.uuid = std::string(device.at("uuid").as_string()),
                           .name = std::string(device.at("name").as_string()),
                           .memory_bytes = device.at("memory_bytes").to_number<std::uint64_t>()});
  }
  return out;
}

}  // namespace

// Libraries may write lines of their own before ours.
Result<RankDevices> parse_rank_devices(std::string_view output) {
  const Error none{ErrorCode::corrupt, "the rank binary says nothing of devices"};
  const auto begin = output.rfind("\n{");
  if (begin != std::string_view::npos) output.remove_prefix(begin + 1);
  try {
    const json::value line = json::parse(output.substr(0, output.find('\n')));
    if (!line.is_object()) return none;
    if (const json::value* problem = line.as_object().if_contains("problem")) {
      return Error{ErrorCode::unsupported, std::string(problem->as_string())};
    }
    return devices_of(line.as_object());
  } catch (const std::exception&) {
    return none;
  }
}

Result<RankDevices> ask_rank_devices(const std::filesystem::path& binary,
                                     const std::vector<std::string>& environment,
                                     Duration deadline) {
  auto started = launch({.command = {binary.string(), "devices"},
                         .environment = environment,
                         .folder = {},
                         .linked = false});
  if (!started) return std::move(started).error();
  std::string text;
  const bool ended = read_all(started->output.get(), monotonic_now() + deadline, text);
  signal_group(started->pid, SIGKILL);
  pollfd end{.fd = started->pidfd.get(), .events = POLLIN, .revents = 0};
  ::poll(&end, 1, -1);  // it was killed
  static_cast<void>(reap(*started));
  if (!ended) {
    return Error{ErrorCode::deadline_exceeded,
                 binary.string() + " devices did not end in its time"};
  }
  return parse_rank_devices(text);
}

}  // namespace tutti::worker
