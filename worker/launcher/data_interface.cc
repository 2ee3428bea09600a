#include "worker/launcher/data_interface.h"

#include <arpa/inet.h>
#include <ifaddrs.h>
#include <netinet/in.h>

#include <cstring>
#include <memory>

namespace tutti::worker {

namespace {

bool has_address(const ifaddrs& one, const std::string& address) {
  if (one.ifa_addr == nullptr) return false;
  if (one.ifa_addr->sa_family == AF_INET) {
    in_addr wanted{};
    const auto* const own = reinterpret_cast<const sockaddr_in*>(one.ifa_addr);
    return ::inet_pton(AF_INET, address.c_str(), &wanted) == 1 &&
           own->sin_addr.s_addr == wanted.s_addr;
  }
  if (one.ifa_addr->sa_family == AF_INET6) {
    in6_addr wanted{};
    const auto* const own = reinterpret_cast<const sockaddr_in6*>(one.ifa_addr);
    return ::inet_pton(AF_INET6, address.c_str(), &wanted) == 1 &&
           std::memcmp(&own->sin6_addr, &wanted, sizeof(wanted)) == 0;
  }
  return false;
}

}  // namespace

std::string interface_of(const std::string& address) {
  ifaddrs* first = nullptr;
  if (::getifaddrs(&first) != 0) return {};
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> all(first, &::freeifaddrs);
  for (const ifaddrs* one = first; one != nullptr; one = one->ifa_next) {
    if (has_address(*one, address)) return one->ifa_name;
  }
  return {};
}

}  // namespace tutti::worker
