// Times of one case, ours and its peers' in turns, so that a busy machine slows all of them alike.
#pragma once

#include <string>
#include <string_view>
#include <utility>
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
inline constexpr double kLongRoundSeconds = 0.1;
inline constexpr double kWarmRoundSeconds = 0.5;

// Rounds from which on medians may be settled.
inline constexpr std::size_t kSettledMin = 20;

// Whether the standard error of each median, taken from its quartiles, is below a two-hundredth of
// it.
bool settled(const std::vector<Samples>& samples);

// A peer that takes so many times as long as what is measured first, and so many seconds, has been
// measured well enough by the run that warms up. (A library's first call may set things up, but not
// for so long.)
inline constexpr double kFarBehind = 8.0;
inline constexpr double kFarBehindSeconds = 1.0;

// A median so far above the fastest run is one of a machine that others had meanwhile: the case is
// measured again, so often at most, and the try whose medians are nearest to their fastest runs
// counts. What is as far above them still is marked where lines become tables (kernels_goals.py).
inline constexpr double kDisturbed = 1.25;
inline constexpr int kTriesMax = 3;

// How far: of the function that is farthest.
double disturbance(const std::vector<Samples>& samples);

// time(i) -> the seconds of function i of `count`. Each of them once in turn to warm up, then again
// and again until the medians are settled, for `seconds` in all at most, kRoundsMin times at least.
// Of rounds longer than kWarmRoundSeconds the first counts too: a median of three is none that the
// first run of something could move.
template <class Time>
std::vector<Samples> measure_once(std::size_t count, double seconds, const Time& time) {
  std::vector<Samples> samples(count);
  std::vector<std::size_t> turns;
  double round = 0.0;
  for (std::size_t i = 0; i < count; ++i) {
    samples[i].seconds.push_back(time(i));
    const double first = samples[i].seconds[0];
    if (first > kFarBehindSeconds && first > kFarBehind * samples[0].seconds[0]) continue;
    turns.push_back(i);
    round += first;
  }
  const bool warm = round > kWarmRoundSeconds;
  if (!warm) {
    for (const std::size_t i : turns) samples[i].seconds.clear();
  }
  const int rounds = round > kLongRoundSeconds ? kLongRoundsMin : kRoundsMin;
  const double end = now_seconds() + seconds;
  std::size_t look = kSettledMin;
  for (int done = warm ? 1 : 0; done < rounds || now_seconds() < end; ++done) {
    for (const std::size_t i : turns) samples[i].seconds.push_back(time(i));
    if (samples[0].seconds.size() < look) continue;
    if (settled(samples)) break;
    look += look / 4;  // sorting stays small beside the rounds
  }
  for (Samples& s : samples) s.finish();
  return samples;
}

// The calmest of some tries.
template <class Time>
std::vector<Samples> measure_times(std::size_t count, double seconds, const Time& time) {
  std::vector<Samples> best = measure_once(count, seconds, time);
  for (int tries = 1; tries < kTriesMax && disturbance(best) > kDisturbed; ++tries) {
    std::vector<Samples> again = measure_once(count, seconds, time);
    if (disturbance(again) < disturbance(best)) best = std::move(again);
  }
  return best;
}

template <class Functions>
std::vector<Samples> measure(const Functions& functions, double seconds,
                             Clock clock = Clock::wall) {
  return measure_times(functions.size(), seconds, [&](std::size_t i) {
    const double begin = now_seconds(clock);
    functions[i]();
    return now_seconds(clock) - begin;
  });
}

// CPU time that the machine's host gave to others while ours wanted it (`steal` of /proc/stat), as
// a share of all CPU time since the clock was made; 0 where nobody says. What neighbours do to
// caches, memory and clocks is not in it.
class StolenTime {
 public:
  StolenTime() : begin_(read()) {}
  double share() const;

 private:
  struct Jiffies {
    double stolen = 0.0;
    double all = 0.0;
  };
  static Jiffies read();
  Jiffies begin_;
};

// One JSON line as DESIGN's command-line chapter says; times in microseconds.
struct Line {
  std::string_view bench;
  std::string name;
  const Samples* ours = nullptr;
  std::string_view peer;  // empty: none
  const Samples* theirs = nullptr;
  double share = 0.0;    // of the ceiling; 0: none
  double ceiling = 0.0;  // that one, in GB/s or GFLOP/s as `gbps` or `rate` is compared; 0: none
  double rate = 0.0;     // GFLOP/s of the median run; 0: none
  double gbps = 0.0;     // bytes touched, 1e9 a second, of the median run; 0: none
  // All the operands that runs go through in turn, so that each finds its own in memory; 0: each
  // run has the same, wherever they lie.
  double operand_bytes = 0.0;
  std::string_view missing = {};  // a peer that knows the case and did not answer
  double stolen = 0.0;            // StolenTime::share() of the case
};
void print_line(const Line& line);

// What lines of one machine differ by: the instructions in use (a path of cpu_path.h) and the
// threads. Set before the first line; fields of a benchmark that has neither are null.
struct Setting {
  std::string path;
  int threads = 0;
};
void describe_setting(const Setting& setting);

// The keys that say where a line was measured and of which sources:
//   "machine":...,"path":...,"threads":...,"sources":...
// A run that was ended goes on beside lines that have the same.
std::string place_json();
// Those, and "commit":...,"date":... The environment has sources and commit (ops/bench/sources.py).
std::string where_json();

}  // namespace tutti::bench
