#include "jobs/rank/op_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "protocol/base/log.h"

namespace tutti::rank {

namespace {

constexpr std::size_t kOpsShown = 8;  // what is left is a percent or two

std::string describe(const kernels::OpCount& count) {
  std::string text = fmt::format("{} {:.3g} s ({} calls", count.name, count.seconds, count.calls);
  const auto rate = [&](std::int64_t work, const char* unit) {
    if (count.seconds <= 0 || work == 0) return;
    text += fmt::format(", {:.1f} {}", 1e-9 * static_cast<double>(work) / count.seconds, unit);
  };
  rate(count.flop, "GFLOP/s");
  rate(count.bytes, "GB/s");
  return text + ")";
}

}  // namespace

std::string describe_ops(std::span<const kernels::OpCount> counts) {
  if (counts.empty()) return "";
  std::vector<kernels::OpCount> sorted(counts.begin(), counts.end());
  std::ranges::stable_sort(sorted, std::greater<>(), &kernels::OpCount::seconds);
  std::string text = "ops: ";
  for (std::size_t i = 0; i < std::min(sorted.size(), kOpsShown); ++i) {
    if (i > 0) text += ", ";
    text += describe(sorted[i]);
  }
  if (sorted.size() > kOpsShown) {
    text += fmt::format(", and {} more", sorted.size() - kOpsShown);
  }
  return text;
}

std::string describe_huge_pages(const kernels::HugePages& pages) {
  if (pages.asked == 0) return "";
  return fmt::format("huge pages: {} MiB asked for, {} MiB given", pages.asked >> 20,
                     pages.given >> 20);
}

void log_ops() {
  for (const std::string& line :
       {describe_ops(kernels::op_counts()), describe_huge_pages(kernels::huge_pages())}) {
    if (!line.empty()) TUTTI_LOG_INFO("rank", "{}", line);
  }
}

}  // namespace tutti::rank
