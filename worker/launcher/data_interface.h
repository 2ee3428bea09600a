// Which network interface has an address of this machine: NCCL's own sockets take the first that
// they like, on a machine with several, and know nothing of the address that ranks agreed on.
//
// Threads: any. Nothing waits: a name that is no address is not looked up.
#pragma once

#include <string>

namespace tutti::worker {

// "eth0" of "10.0.0.7"; empty: no interface has it.
std::string interface_of(const std::string& address);

}  // namespace tutti::worker
