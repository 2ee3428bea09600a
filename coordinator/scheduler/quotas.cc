#include "coordinator/scheduler/quotas.h"

#include <fmt/core.h>

#include <charconv>
#include <cmath>
#include <string_view>

namespace tutti::coordinator::scheduler {

namespace {

constexpr double kShareMax = 1e6;

Error wrong(const std::string& user, std::string_view what) {
  return {ErrorCode::invalid_argument, fmt::format("quotas.{}: {}", user, what)};
}

template <class Number>
std::optional<Number> number_of(std::string_view text) {
  Number value{};
  const char* const end = text.data() + text.size();
  const auto [rest, error] = std::from_chars(text.data(), end, value);
  if (error != std::errc{} || rest != end) return std::nullopt;
  return value;
}

Result<> read_word(const std::string& user, std::string_view word, Quota& quota) {
  const std::size_t equals = word.find('=');
  const std::string_view name = word.substr(0, equals);
  const std::string_view text = equals == word.npos ? "" : word.substr(equals + 1);
  if (name == "share") {
    const auto share = number_of<double>(text);
    if (!share || !(*share > 0) || *share > kShareMax) {
      return wrong(user, fmt::format("share must be a number above 0, not \"{}\"", text));
    }
    quota.share = share;
    return {};
  }
  std::optional<std::uint32_t>* target = name == "slots"     ? &quota.slots
                                         : name == "running" ? &quota.running
                                         : name == "queued"  ? &quota.queued
                                                             : nullptr;
  if (target == nullptr) {
    return wrong(user,
                 fmt::format("unknown word \"{}\"; valid: slots, running, queued, share", name));
  }
  *target = number_of<std::uint32_t>(text);
  if (!*target)
    return wrong(user, fmt::format("{} must be a whole number, not \"{}\"", name, text));
  return {};
}

}  // namespace

Quota Quotas::of(const std::string& owner) const {
  const auto at = users.find(owner);
  if (at == users.end()) return by_default;
  Quota out = at->second;
  if (!out.slots) out.slots = by_default.slots;
  if (!out.running) out.running = by_default.running;
  if (!out.queued) out.queued = by_default.queued;
  if (!out.share) out.share = by_default.share;
  return out;
}

std::map<std::string, double> Quotas::shares() const {
  std::map<std::string, double> out;
  for (const auto& [owner, quota] : users) {
    if (const auto share = of(owner).share) out[owner] = *share;
  }
  return out;
}

Result<Quotas> parse_quotas(const std::map<std::string, std::string>& rows) {
  Quotas out;
  for (const auto& [user, text] : rows) {
    Quota& quota = user == "default" ? out.by_default : out.users[user];
    std::string_view rest = text;
    while (!rest.empty()) {
      const std::size_t space = rest.find(' ');
      const std::string_view word = rest.substr(0, space);
      rest = space == rest.npos ? std::string_view{} : rest.substr(space + 1);
      if (word.empty()) continue;
      if (Result<> read = read_word(user, word, quota); !read) return read.error();
    }
  }
  return out;
}

}  // namespace tutti::coordinator::scheduler
