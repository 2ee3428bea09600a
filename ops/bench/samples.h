// Times of one case, ours and its peers' in turns, so that a busy machine slows all of them alike.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace tutti::bench {

struct Samples {
  std::vector<double> seconds;  // sorted by finish()

  void finish();
  double at(double quantile) const;  // 0 the fastest
  double median() const { return at(0.5); }
};

// What a sample counts. Time of the calling thread leaves out what other programs take from its
// core; it is right for work that stays on that thread.
enum class Clock { wall, thread };

double now_seconds(Clock clock = Clock::wall);

// Rounds of a case that takes long: five, but three where one is longer than that.
inline constexpr int kRoundsMin = 5;
inline constexpr int kLongRoundsMin = 3;
inline constexpr double kLongRoundSeconds = 0.5;

// Runs each function once in turn, again and again, for `seconds` in all, kRoundsMin times at
// least, after one to warm up.
template <class Functions>
std::vector<Samples> measure(const Functions& functions, double seconds,
                             Clock clock = Clock::wall) {
  std::vector<Samples> samples(functions.size());
  const double start = now_seconds();
  for (const auto& function : functions) function();
  const int rounds = now_seconds() - start > kLongRoundSeconds ? kLongRoundsMin : kRoundsMin;
  const double end = now_seconds() + seconds;
  for (int round = 0; round < rounds || now_seconds() < end; ++round) {
    for (std::size_t i = 0; i < functions.size(); ++i) {
      const double begin = now_seconds(clock);
      functions[i]();
      samples[i].seconds.push_back(now_seconds(clock) - begin);
    }
  }
  for (Samples& s : samples) s.finish();
  return samples;
}

// One JSON line as DESIGN's command-line chapter says; times in microseconds.
struct Line {
  std::string_view bench;
  std::string name;
  const Samples* ours = nullptr;
  std::string_view peer;  // empty: none
  const Samples* theirs = nullptr;
  double share = 0.0;  // of the ceiling; 0: none
  double rate = 0.0;   // GFLOP/s of the median run; 0: none
  double gbps = 0.0;   // bytes touched, 1e9 a second, of the median run; 0: none
  // All the operands that runs go through in turn, so that each finds its own in memory; 0: each
  // run has the same, wherever they lie.
  double operand_bytes = 0.0;
};
void print_line(const Line& line);

// What lines of one machine differ by: the instructions in use (a path of cpu_path.h) and the
// threads. Set before the first line; fields of a benchmark that has neither are null.
struct Setting {
  std::string path;
  int threads = 0;
};
void describe_setting(const Setting& setting);

// The keys that say where a line was measured, "machine":...,"path":...,"threads":...,"commit":...
std::string where_json();

}  // namespace tutti::bench
