#include "coordinator/metrics/exposition.h"

#include <fmt/format.h>

#include <cmath>
#include <iterator>

#include "protocol/base/assert.h"

namespace tutti::coordinator {

namespace {

constexpr std::string_view kKinds[] = {"counter", "gauge", "histogram"};

bool is_metric_name(std::string_view name) {
  const auto letter = [](char c) { return (c >= 'a' && c <= 'z') || c == '_'; };
  if (name.empty() || !letter(name[0])) return false;
  for (const char c : name) {
    if (!letter(c) && !(c >= '0' && c <= '9')) return false;
  }
  return true;
}

void escape(std::string& out, std::string_view value) {
  for (const char c : value) {
    if (c == '\\') {
      out += "\\\\";
    } else if (c == '"') {
      out += "\\\"";
    } else if (c == '\n') {
      out += "\\n";
    } else {
      out += c;
    }
  }
}

// Whole numbers without a point, others as short as they are exact.
std::string number(double value) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
  constexpr double kWholeMax = 9e15;
  if (value == std::floor(value) && std::fabs(value) < kWholeMax)
    return fmt::format("{}", static_cast<std::int64_t>(value));
  return fmt::format("{}", value);
}

}  // namespace

void Exposition::family(std::string_view name, MetricKind kind, std::string_view help) {
  TUTTI_ASSERT(is_metric_name(name));
  TUTTI_ASSERT((kind == MetricKind::counter) == name.ends_with("_total"));
  TUTTI_ASSERT(seen_.emplace(name).second);
  name_ = name;
  fmt::format_to(std::back_inserter(text_), "# HELP {0} {1}\n# TYPE {0} {2}\n", name, help,
                 kKinds[static_cast<std::size_t>(kind)]);
}

void Exposition::line(std::string_view name, const Labels& labels, double value) {
  text_ += name;
  char open = '{';
  for (const auto& [label, content] : labels) {
    TUTTI_ASSERT(is_metric_name(label));
    text_ += open;
    open = ',';
    text_.append(label).append("=\"");
    escape(text_, content);
    text_ += '"';
  }
  if (!labels.empty()) text_ += '}';
  text_.append(" ").append(number(value)).append("\n");
}

void Exposition::sample(const Labels& labels, double value) { line(name_, labels, value); }

void Exposition::histogram(const Labels& labels, const Histogram& values) {
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < values.counts().size(); ++i) {
    below += values.counts()[i];
    Labels with = labels;
    with.emplace_back("le", i < values.bounds().size() ? number(values.bounds()[i]) : "+Inf");
    line(name_ + "_bucket", with, static_cast<double>(below));
  }
  line(name_ + "_sum", labels, values.sum());
  line(name_ + "_count", labels, static_cast<double>(values.count()));
}

void Exposition::counter(std::string_view name, std::uint64_t value, std::string_view help) {
  family(name, MetricKind::counter, help);
  sample(static_cast<double>(value));
}

void Exposition::gauge(std::string_view name, double value, std::string_view help) {
  family(name, MetricKind::gauge, help);
  sample(value);
}

}  // namespace tutti::coordinator
