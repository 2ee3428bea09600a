// The network between the coordinator and its workers: frames are lost, repeated, delayed and
// overtaken; a cable is cut in one direction or both; observers drop or hold back what they choose.
//
// Frames travel as bytes through the real codec, so the trace's hash covers what was said.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "tests/simulation/world/world.h"

namespace tutti::simulation {

struct NetworkOptions {
  Duration delay_min = 200us;
  Duration delay_max = 3ms;
  double loss = 0;
  double repeat = 0;    // a frame arrives twice
  double overtake = 0;  // a frame is held back, and later ones pass it
};

enum class Direction { to_coordinator, to_worker };

struct FrameSeen {
  const std::string& worker;
  Direction direction;
  std::string_view message;  // its name
};

struct FrameFate {
  enum class What { pass, drop, hold };
  What what = What::pass;
  Duration hold{0};
};

// Asked about every frame; the first that does not let it pass decides.
using Observer = std::function<FrameFate(const FrameSeen&)>;

class Network {
 public:
  Network(World& world, const NetworkOptions& options) : world_(world), options_(options) {}

  void observe(Observer observer) { observers_.push_back(std::move(observer)); }
  void calm();  // no more faults
  void congest(Duration more) { congestion_ = more; }

 private:
  friend class Channel;

  World& world_;
  NetworkOptions options_;
  Duration congestion_{0};
  std::vector<Observer> observers_;
};

// One direction of one link.
class Channel {
 public:
  Channel(Network& network, std::string worker, Direction direction)
      : network_(network), worker_(std::move(worker)), direction_(direction) {}

  void send(std::string_view message, const std::function<void()>& deliver);
  void cut() { cut_ = true; }
  void heal() { cut_ = false; }
  bool is_cut() const { return cut_; }

 private:
  Network& network_;
  std::string worker_;
  Direction direction_;
  Instant last_;
  bool cut_ = false;
};

}  // namespace tutti::simulation
