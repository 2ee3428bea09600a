// What the cluster says of itself, judged.
#include <fmt/core.h>

#include <boost/json/array.hpp>

#include <cstdlib>
#include <map>
#include <set>

#include "ops/cli/client/fields.h"
#include "ops/cli/doctor/findings.h"
#include "ops/cli/text/top_text.h"
#include "protocol/base/clock.h"
#include "protocol/base/counted.h"

namespace tutti::cli {

namespace json = boost::json;

namespace {

constexpr std::int64_t kSkewMsMax = 2'000;
constexpr double kLedgerBytesMax = 2.0 * (1U << 30);
constexpr std::int64_t kExpiresSoonMs = 7LL * 24 * 3600 * 1000;

struct NodeAdvice {
  std::string_view state;
  Verdict verdict;
  std::string_view advice;
};

constexpr NodeAdvice kNodeAdvice[] = {
    {"lost", Verdict::problem, "is the machine up, and its worker running? worker.log says why"},
    {"quarantined", Verdict::problem,
     "it was lost again and again, or failed jobs of several users: `tutti node` says which, and "
     "what ends it"},
    {"suspect", Verdict::note, "it has not been heard of for a while"},
    {"expected", Verdict::note, "it has not come back since the coordinator began"},
    {"draining", Verdict::note, "it takes no new work; `tutti undrain` ends that"},
    {"drained", Verdict::note, "it takes no new work; `tutti undrain` ends that"},
};

Finding judge_clock(const json::value& who, std::int64_t before, std::int64_t after) {
  const std::int64_t theirs = whole_of(who, "now_unix_ms");
  if (theirs == 0) return {Verdict::note, "clocks", "the coordinator does not say its time", ""};
  const std::int64_t skew = theirs < before ? theirs - before : theirs > after ? theirs - after : 0;
  const std::string found = fmt::format("{} ms from the coordinator's", skew);
  if (std::abs(skew) <= kSkewMsMax) return {Verdict::good, "clocks", found, ""};
  return {Verdict::problem, "clocks", found, "synchronise both machines' clocks (chrony)"};
}

void judge_tokens(const json::value& answer, std::vector<Finding>& out) {
  const std::int64_t soon = wall_now().unix_ms + kExpiresSoonMs;
  for (const json::value& token : list_of(answer, "tokens")) {
    const std::int64_t expires = whole_of(token, "expires_unix_ms");
    if (expires == 0 || expires > soon) continue;
    out.push_back({Verdict::note, "token",
                   fmt::format("{} of {} expires {}", whole_of(token, "id"), text_of(token, "user"),
                               print_date(expires)),
                   "make another in time: tutti token create " + text_of(token, "user")});
  }
}

}  // namespace

std::vector<Finding> judge_nodes(const json::value& nodes) {
  std::vector<Finding> out;
  std::int64_t slots = 0;
  std::set<std::string> versions;
  for (const json::value& node : list_of(nodes, "nodes")) {
    slots += whole_of(node, "slots");
    versions.insert(text_of(node, "version"));
    std::string state = text_of(node, "state");
    if (flag_of(node, "quarantined")) state = "quarantined";
    for (const NodeAdvice& advice : kNodeAdvice) {
      if (state != advice.state) continue;
      out.push_back({advice.verdict, "node", fmt::format("{} is {}", text_of(node, "name"), state),
                     std::string(advice.advice)});
    }
  }
  const std::size_t count = list_of(nodes, "nodes").size();
  if (slots == 0) {
    out.push_back({Verdict::problem, "nodes", "no node has a slot",
                   "start a worker: `tutti up`, or `tutti worker --config F` with join.json"});
  } else {
    out.push_back(
        {Verdict::good, "nodes",
         fmt::format("{} with {}", count, counted(static_cast<std::uint64_t>(slots), "slot")), ""});
  }
  if (versions.size() > 1) {
    std::string list;
    for (const std::string& version : versions) list += (list.empty() ? "" : ", ") + version;
    out.push_back({Verdict::note, "versions", "nodes run " + list, "finish the upgrade"});
  }
  return out;
}

std::vector<Finding> judge_metrics(const std::string& metrics) {
  const auto samples = parse_metrics(metrics);
  const auto value = [&](const std::string& name) {
    const auto found = samples.find(name);
    return found == samples.end() ? 0 : found->second;
  };
  std::vector<Finding> out;
  if (value("tutti_ledger_failing") > 0) {
    out.push_back({Verdict::problem, "ledger", "its disk is full: submits are refused",
                   "make room on the coordinator's disk; jobs go on meanwhile"});
  }
  const double bytes = value("tutti_ledger_size_bytes");
  const std::string found = print_bytes_short(static_cast<std::uint64_t>(bytes));
  if (bytes > kLedgerBytesMax) {
    out.push_back({Verdict::note, "ledger", found + " on disk",
                   "larger than its history should need: `tutti ledger backup`, then restore it"});
  } else {
    out.push_back({Verdict::good, "ledger", found + " on disk", ""});
  }
  const double syncs = value("tutti_ledger_sync_seconds_count");
  if (syncs > 0) {
    const double ms = value("tutti_ledger_sync_seconds_sum") / syncs * 1000;
    out.push_back({ms > 20 ? Verdict::note : Verdict::good, "ledger sync",
                   fmt::format("{:.2f} ms on average", ms),
                   ms > 20 ? "each submit waits for it: a local SSD is meant" : ""});
  }
  return out;
}

Finding judge_silence(const Error& error, Expected expected) {
  if (error.code == ErrorCode::permission_denied) {
    return {Verdict::problem, "cluster", error.message,
            "set TUTTI_TOKEN to one that is good: `tutti token create` makes them"};
  }
  if (expected == Expected::cluster) {
    return {
        Verdict::problem, "cluster", error.message,
        "does its coordinator run? Its log says why it ended: with `tutti up`, coordinator.log"};
  }
  return {Verdict::note, "cluster", error.message, "nothing of it was looked at"};
}

std::vector<Finding> examine_cluster(Api& api, Expected expected) {
  const std::int64_t before = wall_now().unix_ms;
  const Result<json::value> who = api.get("/api/v1/whoami");
  if (!who) return {judge_silence(who.error(), expected)};
  std::vector<Finding> out{
      {Verdict::good, "cluster",
       fmt::format("reached as {} ({})", text_of(*who, "user"), text_of(*who, "role")), ""},
      judge_clock(*who, before, wall_now().unix_ms)};
  const auto add = [&](std::vector<Finding> more) {
    out.insert(out.end(), std::make_move_iterator(more.begin()),
               std::make_move_iterator(more.end()));
  };
  if (const Result<json::value> nodes = api.get("/api/v1/nodes")) add(judge_nodes(*nodes));
  if (const Result<std::string> metrics = api.get_text("/metrics")) add(judge_metrics(*metrics));
  if (text_of(*who, "role") == "admin") {
    if (const Result<json::value> tokens = api.get("/api/v1/tokens")) judge_tokens(*tokens, out);
  }
  return out;
}

}  // namespace tutti::cli
