// A peer that lives in another program, such as PyTorch: it prepares a case when told its name and
// shape, runs it when told to, and says how many seconds that took. The number is of copies of its
// operands, which runs take in turns.
//
//   > case 1 attention_forward 8 6 6 256 32 causal   < ready         (or: unknown)
//   > run                                            < 0.00123
//
// Ownership: ends the program and waits for it. Errors: available() is false where it could not be
// started or stopped answering; then there is no peer, and the benchmark says so.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "ops/bench/samples.h"

namespace tutti::bench {

class PeerProcess {
 public:
  explicit PeerProcess(const std::vector<std::string>& command);
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;
  ~PeerProcess();

  bool available() const { return process_ > 0; }
  bool prepare(const std::string& name, long copies = 1);
  double run();  // seconds; negative: it does not answer any more

 private:
  std::string ask(const std::string& line);
  void stop();

  pid_t process_ = -1;
  int to_ = -1;
  int from_ = -1;
};

// PyTorch in $PEERS_VENV with that many threads; not available where the variable is not set.
PeerProcess& torch_peer(int threads);

// Ours, then the peer's, in turns, as measure() does. While one of the two runs, the cores of the
// other sleep, and a core that slept is at a low clock for its next millisecond: both rouse theirs
// before they count, ours by `rouse`.
inline constexpr double kRouseSeconds = 0.002;
template <class Function, class Rouse>
std::vector<Samples> measure_with_peer(const Function& ours, const Rouse& rouse, PeerProcess& peer,
                                       double seconds, Clock clock) {
  return measure_times(2, seconds, [&](std::size_t i) {
    if (i == 1) return peer.run();
    rouse();
    const double begin = now_seconds(clock);
    ours();
    return now_seconds(clock) - begin;
  });
}

}  // namespace tutti::bench
