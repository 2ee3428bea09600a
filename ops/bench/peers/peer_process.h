// A peer that lives in another program, such as PyTorch: it prepares a case when told its name and
// shape, runs it when told to, and says how many seconds that took. The number is of copies of its
// operands, which runs take in turns.
//
//   > case 1 attention_forward 8 6 6 256 32 causal   < ready         (or: unknown)
//   > run                                            < 0.00123
//
// It has the environment of this program, which says what instructions it may use
// (kernels_main.cc), and all cores that this one was given, not only the calling thread's.
//
// Ownership: ends the program and waits for it. Errors: available() is false where it could not be
// started or did not answer in time; the next prepare() starts it again, so often at most.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace tutti::bench {

enum class PeerAnswer { ready, unknown, none };

class PeerProcess {
 public:
  explicit PeerProcess(std::vector<std::string> command);  // empty: there is none
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;
  ~PeerProcess();

  bool available() const { return process_ > 0; }
  PeerAnswer prepare(const std::string& name, long copies = 1);
  double run();  // seconds; negative: it does not answer any more

 private:
  void start();
  std::string ask(const std::string& line);
  void stop();

  std::vector<std::string> command_;
  int starts_ = 0;
  pid_t process_ = -1;
  int to_ = -1;
  int from_ = -1;
};

// PyTorch in $PEERS_VENV with that many threads, started when a case first asks for it; none where
// the variable is not set.
PeerProcess& torch_peer(int threads);
bool has_torch_peer();

}  // namespace tutti::bench
