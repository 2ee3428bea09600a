// Whether the operating system gives this process the tiles of AMX.
#pragma once

namespace tutti::kernels {

// Asks it, the first time. Call it only where the CPU has AMX-TILE.
bool ask_for_amx();

}  // namespace tutti::kernels
