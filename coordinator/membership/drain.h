// Nodes that get no new work: drained on request, leaving by themselves (SIGTERM), or set aside
// (quarantine.h).
//
// A draining node is empty by its deadline (I16). Where there is room elsewhere, a server's
// successor is started there and takes over before the old one ends, and a training job that has
// ranks on other nodes moves only those that are here, or goes on with fewer. All others are asked
// to leave (release.h) with what is left of that time as their notice: training jobs save and queue
// again, programs get their SIGTERM and a grace. So is a move that came to nothing.
#pragma once

#include <string>
#include <vector>

#include "coordinator/cluster/desk.h"

namespace tutti::coordinator {

void on_drain(Desk& desk, const DrainNode& input);
void on_undrain(Desk& desk, const UndrainNode& input);
void on_leaving(Desk& desk, const WorkerLink& link, const wire::WorkerLeaving& report);

// It costs more than it does (quarantine.h). `steady`: it takes work again once it has stayed for
// so long; zero: once it is undrained.
void set_aside(Desk& desk, const std::string& worker, const std::string& reason, Duration steady);

// Asks every job that is on a draining node to leave it, and says when the node is empty. Cheap
// where no node drains.
void advance_drains(Desk& desk);

}  // namespace tutti::coordinator
