#include "worker/agent/join.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/json.hpp>

#include <cerrno>
#include <charconv>
#include <memory>
#include <optional>

#include "protocol/base/sha256.h"

namespace tutti::worker {

namespace {

constexpr std::uint64_t kJoinBytesMax = 64 << 10;

using AddressList = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Result<AddressList> resolve(const std::string& host, const char* port, int type) {
  addrinfo hints{};
  hints.ai_socktype = type;
  hints.ai_flags = AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int failed = ::getaddrinfo(host.c_str(), port, &hints, &found);
  if (failed != 0) {
    return Error{ErrorCode::unavailable, "cannot find " + host + ": " + ::gai_strerror(failed)};
  }
  return AddressList(found, &::freeaddrinfo);
}

Result<std::string> numeric(const sockaddr* address, socklen_t bytes) {
  char host[NI_MAXHOST];
  const int failed = ::getnameinfo(address, bytes, host, sizeof host, nullptr, 0, NI_NUMERICHOST);
  if (failed != 0) return Error{ErrorCode::internal, ::gai_strerror(failed)};
  return std::string(host);
}

Result<std::string> host_of(const std::string& endpoint) {
  constexpr std::string_view kScheme = "tcp://";
  const auto colon = endpoint.rfind(':');
  if (!endpoint.starts_with(kScheme) || colon <= kScheme.size()) {
    return Error{ErrorCode::corrupt, "not tcp://HOST:PORT: " + endpoint};
  }
  const char* const end = endpoint.data() + endpoint.size();
  std::uint16_t port = 0;
  const auto [rest, wrong] = std::from_chars(endpoint.data() + colon + 1, end, port);
  if (wrong != std::errc() || rest != end || port == 0) {
    return Error{ErrorCode::corrupt, "no port in " + endpoint};
  }
  std::string host = endpoint.substr(kScheme.size(), colon - kScheme.size());
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.empty()) return Error{ErrorCode::corrupt, "no host in " + endpoint};
  return host;
}

}  // namespace

Result<JoinInfo> parse_join(const std::string& json) {
  boost::system::error_code failed;
  const boost::json::value value = boost::json::parse(json, failed);
  const boost::json::object* object = failed ? nullptr : value.if_object();
  JoinInfo out;
  const auto take = [&](const char* name, std::string& into) {
    const boost::json::value* field = object == nullptr ? nullptr : object->if_contains(name);
    if (field == nullptr || !field->is_string()) return false;
    into = field->as_string();
    return into.find('\0') == std::string::npos;
  };
  if (!take("endpoint", out.endpoint) || !take("server_key", out.server_key) ||
      !take("join_token", out.join_token)) {
    return Error{ErrorCode::corrupt,
                 "not a join file: endpoint, server_key and join_token expected"};
  }
  auto host = host_of(out.endpoint);
  if (!host) return host.error();
  out.host = *std::move(host);
  return out;
}

namespace {

Result<JoinInfo> with_address(Result<JoinInfo> join) {
  if (!join) return join;
  const auto addresses = resolve(join->host, nullptr, SOCK_STREAM);
  if (!addresses) return addresses.error();
  auto text = numeric((*addresses)->ai_addr, (*addresses)->ai_addrlen);
  if (!text) return text.error();
  join->host = *std::move(text);
  return join;
}

}  // namespace

namespace {

// Nothing if it was learned in the place of another join.json.
std::optional<Learned> read_learned(const std::filesystem::path& path, const std::string& file) {
  const auto json = read_file(path, kJoinBytesMax);
  boost::system::error_code failed;
  const boost::json::value value = json ? boost::json::parse(*json, failed) : nullptr;
  const auto* object = failed ? nullptr : value.if_object();
  const auto* instead = object == nullptr ? nullptr : object->if_contains("instead_of");
  if (instead == nullptr || !instead->is_string() ||
      std::string_view(instead->as_string()) != sha256_hex(file)) {
    return std::nullopt;
  }
  auto join = with_address(parse_join(*json));
  if (!join) return std::nullopt;
  Learned out{.join = *std::move(join), .before = {}, .at = {}};
  if (const auto* at = object->if_contains("learned_unix_ms"); at != nullptr && at->is_int64())
    out.at.unix_ms = at->as_int64();
  if (const auto* before = object->if_contains("before")) {
    if (auto old = with_address(parse_join(boost::json::serialize(*before))))
      out.before = *std::move(old);
  }
  return out;
}

boost::json::object json_of(const JoinInfo& join) {
  return {{"endpoint", join.endpoint},
          {"server_key", join.server_key},
          {"join_token", join.join_token}};
}

}  // namespace

Result<std::vector<JoinInfo>> read_join(const std::filesystem::path& file,
                                        const std::filesystem::path& learned, WallTime now) {
  const auto json = read_file(file, kJoinBytesMax);
  if (!json) return json.error();
  auto written = with_address(parse_join(*json));
  if (!written) return Error(written.error()).with_context(file.string());
  const auto instead = learned.empty() ? std::nullopt : read_learned(learned, *json);
  if (!instead) return std::vector{*std::move(written)};
  std::vector<JoinInfo> out{instead->join};
  if (instead->join.endpoint != written->endpoint) {
    written->server_key = instead->join.server_key;
    out.push_back(*std::move(written));
  }
  const Duration age = std::chrono::milliseconds(now.unix_ms - instead->at.unix_ms);
  if (instead->before && age < kOldKeyWithin) out.push_back(*instead->before);
  return out;
}

Result<> keep_learned(const std::filesystem::path& path, const Learned& learned,
                      const std::filesystem::path& file) {
  const auto json = read_file(file, kJoinBytesMax);
  if (!json) return json.error();
  boost::json::object object = json_of(learned.join);
  object["instead_of"] = sha256_hex(*json);
  object["learned_unix_ms"] = learned.at.unix_ms;
  if (learned.before) object["before"] = json_of(*learned.before);
  return write_file_atomically(path, boost::json::serialize(object) + "\n", 0600);
}

std::string with_port(const std::string& endpoint, std::uint16_t port) {
  return endpoint.substr(0, endpoint.rfind(':') + 1) + std::to_string(port);
}

Result<std::string> local_address(const std::string& host) {
  // Connecting a datagram socket sends nothing; it only asks the routing table.
  const auto addresses = resolve(host, "9", SOCK_DGRAM);
  if (!addresses) return addresses.error();
  const addrinfo& to = **addresses;
  const FileDescriptor socket(::socket(to.ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (!socket) return errno_error("cannot make a socket", errno);
  if (::connect(socket.get(), to.ai_addr, to.ai_addrlen) != 0) {
    return errno_error("no route to " + host, errno);
  }
  sockaddr_storage own{};
  socklen_t bytes = sizeof own;
  if (::getsockname(socket.get(), reinterpret_cast<sockaddr*>(&own), &bytes) != 0) {
    return errno_error("cannot read an own address", errno);
  }
  return numeric(reinterpret_cast<const sockaddr*>(&own), bytes);
}

bool is_loopback(const std::string& address) {
  return address.starts_with("127.") || address == "::1";
}

Result<ReservedAddress> reserve_address(const std::string& local) {
  const auto addresses = resolve(local, "0", SOCK_STREAM);
  if (!addresses) return addresses.error();
  const addrinfo& at = **addresses;
  ReservedAddress out;
  out.socket.reset(::socket(at.ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (!out.socket) return errno_error("cannot make a socket", errno);
  if (::bind(out.socket.get(), at.ai_addr, at.ai_addrlen) != 0) {
    return errno_error("no free port on " + local, errno);
  }
  sockaddr_storage bound{};
  socklen_t bytes = sizeof bound;
  if (::getsockname(out.socket.get(), reinterpret_cast<sockaddr*>(&bound), &bytes) != 0) {
    return errno_error("cannot read a port", errno);
  }
  const std::uint16_t port = bound.ss_family == AF_INET6
                                 ? reinterpret_cast<const sockaddr_in6&>(bound).sin6_port
                                 : reinterpret_cast<const sockaddr_in&>(bound).sin_port;
  out.address = local + ":" + std::to_string(ntohs(port));
  return out;
}

}  // namespace tutti::worker
