// What a worker leaves in memory for the binary that takes its place.
#include "tests/fuzz/targets.h"
#include "tests/support/sample.h"
#include "worker/agent/handover.h"

namespace tutti::fuzz {

bool take_handover(std::string_view bytes) {
  const auto handover = worker::decode_handover(bytes);
  if (!handover) return false;
  const auto twice = worker::decode_handover(worker::encode_handover(*handover));
  require(twice.ok() && *twice == *handover, "a handover changes on its way");
  return true;
}

std::vector<std::string> handover_seeds() {
  auto handover = sample::filled<worker::Handover>();
  handover.version = 1;
  worker::Handover later;
  later.version = 2;
  std::string torn = worker::encode_handover(later);
  torn.resize(torn.size() / 2);
  return {worker::encode_handover(handover), worker::encode_handover(later), torn};
}

}  // namespace tutti::fuzz
