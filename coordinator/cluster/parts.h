// What ClusterState hides: its desk. Only cluster_state.cc and views.cc look inside.
#pragma once

#include <utility>

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

struct ClusterState::Parts {
  explicit Parts(ClusterSettings settings) : desk(std::move(settings)) {}

  Desk desk;
};

}  // namespace tutti::coordinator
