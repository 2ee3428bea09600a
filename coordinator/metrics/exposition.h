// Metrics as text, in Prometheus' format 0.0.4.
//
//   Exposition out;
//   out.family("tutti_jobs", Kind::gauge, "Jobs by state.");
//   out.sample({{"state", "running"}}, 3);
//
// Names are snake_case in base units; a counter ends with _total. A name is a family once, and its
// samples follow it: what breaks that is a broken invariant.
//
// Threads: one.
#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/metrics/histogram.h"

namespace tutti::coordinator {

enum class MetricKind { counter, gauge, histogram };

class Exposition {
 public:
  using Labels = std::vector<std::pair<std::string_view, std::string>>;

  void family(std::string_view name, MetricKind kind, std::string_view help);
  void sample(const Labels& labels, double value);
  void sample(double value) { sample({}, value); }
  // Of a family of kind histogram.
  void histogram(const Labels& labels, const Histogram& values);

  // A family of one sample.
  void counter(std::string_view name, std::uint64_t value, std::string_view help);
  void gauge(std::string_view name, double value, std::string_view help);

  const std::string& text() const { return text_; }

 private:
  void line(std::string_view name, const Labels& labels, double value);

  std::string text_;
  std::string name_;
  std::set<std::string, std::less<>> seen_;
};

}  // namespace tutti::coordinator
