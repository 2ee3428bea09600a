#include "coordinator/metrics/exposition.h"

#include <catch2/catch.hpp>

namespace tutti::coordinator {
namespace {

TEST_CASE("metrics: families, labels and numbers are written as Prometheus reads them") {
  Exposition out;
  out.counter("tutti_things_total", 3, "Things.");
  out.family("tutti_jobs", MetricKind::gauge, "Jobs.");
  out.sample({{"name", "a \"b\"\\\nc"}, {"state", "running"}}, 0.25);
  CHECK(out.text() ==
        "# HELP tutti_things_total Things.\n"
        "# TYPE tutti_things_total counter\n"
        "tutti_things_total 3\n"
        "# HELP tutti_jobs Jobs.\n"
        "# TYPE tutti_jobs gauge\n"
        "tutti_jobs{name=\"a \\\"b\\\"\\\\\\nc\",state=\"running\"} 0.25\n");
}

TEST_CASE("metrics: a histogram's buckets are summed up and end with the count") {
  Histogram times{0.1, 1};
  for (const double value : {0.05, 0.1, 0.5, 7.0}) times.observe(value);
  Exposition out;
  out.family("tutti_wait_seconds", MetricKind::histogram, "Waits.");
  out.histogram({{"phase", "x"}}, times);
  CHECK(out.text() ==
        "# HELP tutti_wait_seconds Waits.\n"
        "# TYPE tutti_wait_seconds histogram\n"
        "tutti_wait_seconds_bucket{phase=\"x\",le=\"0.1\"} 2\n"
        "tutti_wait_seconds_bucket{phase=\"x\",le=\"1\"} 3\n"
        "tutti_wait_seconds_bucket{phase=\"x\",le=\"+Inf\"} 4\n"
        "tutti_wait_seconds_sum{phase=\"x\"} 7.65\n"
        "tutti_wait_seconds_count{phase=\"x\"} 4\n");
}

}  // namespace
}  // namespace tutti::coordinator
