#include "ops/cli/client/api.h"

#include <fmt/core.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>

#include <cstdlib>
#include <thread>

#include "ops/cli/client/fields.h"
#include "protocol/base/clock.h"
#include "protocol/base/file.h"

namespace tutti::cli {

namespace {

constexpr std::uint64_t kStateFileBytesMax = 64 << 10;

std::string environment(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

std::string_view trimmed(std::string_view text) {
  const std::size_t last = text.find_last_not_of(" \t\r\n");
  return last == std::string_view::npos ? std::string_view{} : text.substr(0, last + 1);
}

ErrorCode code_of_status(unsigned status) {
  switch (status) {
    case 400: return ErrorCode::invalid_argument;
    case 401:
    case 403: return ErrorCode::permission_denied;
    case 404: return ErrorCode::not_found;
    case 409: return ErrorCode::already_exists;
    case 429: return ErrorCode::exhausted;
    case 503: return ErrorCode::unavailable;
    case 504: return ErrorCode::deadline_exceeded;
    default: return ErrorCode::internal;
  }
}

ErrorCode code_of_name(std::string_view name, ErrorCode otherwise) {
  for (int code = 0; code <= static_cast<int>(ErrorCode::internal); ++code) {
    if (to_string(static_cast<ErrorCode>(code)) == name) return static_cast<ErrorCode>(code);
  }
  return otherwise;
}

}  // namespace

std::filesystem::path default_state_folder() {
  if (const std::string state = environment("TUTTI_STATE"); !state.empty()) return state;
  if (const std::string xdg = environment("XDG_STATE_HOME"); !xdg.empty()) {
    return std::filesystem::path(xdg) / "tutti";
  }
  const std::string home = environment("HOME");
  return std::filesystem::path(home.empty() ? "/" : home) / ".local" / "state" / "tutti";
}

Result<ClusterAddress> find_cluster() {
  if (const std::string url = environment("TUTTI_URL"); !url.empty()) {
    return ClusterAddress{url, environment("TUTTI_TOKEN")};
  }
  const std::filesystem::path folder = default_state_folder();
  const Result<std::string> address = read_file(folder / "address", kStateFileBytesMax);
  if (!address) {
    if (address.error().code == ErrorCode::permission_denied) return address.error();
    return Error{
        ErrorCode::unavailable,
        fmt::format("no cluster in {}; start one with `tutti up`, or set TUTTI_STATE or TUTTI_URL",
                    folder.string())};
  }
  const Result<std::string> token = read_file(folder / "token", kStateFileBytesMax);
  if (!token && token.error().code != ErrorCode::not_found) return token.error();
  const std::string given = environment("TUTTI_TOKEN");
  return ClusterAddress{std::string(trimmed(*address)), !given.empty() ? given
                                                        : token ? std::string(trimmed(*token))
                                                                : ""};
}

Result<boost::json::value> read_reply(const HttpReply& reply) {
  boost::system::error_code failed;
  boost::json::value value = boost::json::parse(reply.body, failed);
  if (reply.status >= 200 && reply.status < 300) {
    if (failed) return Error{ErrorCode::corrupt, "the coordinator's answer is not JSON"};
    return value;
  }
  const ErrorCode code = code_of_status(reply.status);
  const boost::json::value& error = failed ? value : member_of(value, "error");
  std::string message = text_of(error, "message");
  if (message.empty() && reply.status == 401) {
    message = "the coordinator wants a token: set TUTTI_TOKEN, or TUTTI_STATE to its state folder";
  }
  if (message.empty()) message = fmt::format("the coordinator answered {}", reply.status);
  return Error{code_of_name(text_of(error, "code"), code), message};
}

Result<boost::json::value> Api::send(const HttpRequest& request, Repeat repeat) {
  constexpr std::chrono::milliseconds kPauseMin{50};
  constexpr std::chrono::milliseconds kPauseMax{1'000};
  const Instant until = monotonic_now() + patience_;
  std::chrono::milliseconds pause = kPauseMin;
  while (true) {
    const Result<ClusterAddress> cluster = find_cluster();
    if (!cluster) return cluster.error();
    const Result<HttpReply> reply = http_.send(*cluster, request);
    Result<boost::json::value> answer = reply ? read_reply(*reply) : reply.error();
    const bool unreachable = !answer && answer.error().code == ErrorCode::unavailable;
    if (!unreachable) return answer;
    if (repeat == Repeat::never || monotonic_now() + pause > until) {
      if (reply) return answer;
      return Error{ErrorCode::unavailable,
                   answer.error().message + "; is the cluster running? `tutti up` starts one"};
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(pause * 2, kPauseMax);
  }
}

Result<boost::json::value> Api::get(std::string target) {
  return send({"GET", std::move(target), "", std::chrono::seconds(10)}, Repeat::allowed);
}

Result<std::string> Api::get_text(std::string target) {
  const Result<ClusterAddress> cluster = find_cluster();
  if (!cluster) return cluster.error();
  Result<HttpReply> reply =
      http_.send(*cluster, {"GET", std::move(target), "", std::chrono::seconds(10)});
  if (!reply) return reply.error();
  if (reply->status == 200) return std::move(reply->body);
  const Result<boost::json::value> refused = read_reply(*reply);
  return refused ? Error{ErrorCode::corrupt, "the coordinator's answer makes no sense"}
                 : refused.error();
}

Result<boost::json::value> Api::get_within(std::string target, std::chrono::milliseconds wait) {
  return send({"GET", std::move(target), "", wait + std::chrono::seconds(10)}, Repeat::allowed);
}

Result<boost::json::value> Api::post(std::string target, const boost::json::value& body,
                                     Repeat repeat) {
  return send({"POST", std::move(target), boost::json::serialize(body), std::chrono::seconds(30)},
              repeat);
}

Result<> Api::post_stream(std::string target, const boost::json::value& body,
                          const std::function<void(std::string_view)>& on_bytes) {
  const Result<ClusterAddress> cluster = find_cluster();
  if (!cluster) return cluster.error();
  const HttpRequest request{"POST", std::move(target), boost::json::serialize(body),
                            std::chrono::seconds(60)};
  const Result<HttpReply> reply = http_.stream(*cluster, request, on_bytes);
  if (!reply) return reply.error();
  if (reply->status == 200) return {};
  const Result<boost::json::value> answer = read_reply(*reply);
  if (!answer) return answer.error();
  return {};
}

}  // namespace tutti::cli
