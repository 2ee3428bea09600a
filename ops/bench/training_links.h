// What the links between ranks of one machine cost: rings in shared memory beside Unix sockets.
#pragma once

namespace tutti::bench {

// Prints a JSON line for each size of exchange; rings are ours, the socket path is the peer.
void measure_links(double seconds);

}  // namespace tutti::bench
